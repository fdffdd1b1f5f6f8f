"""Descriptions to begin with, one a kind of data (`... simulations.deploy check --example`)."""

from __future__ import annotations

CSV = """\
# What this firm says of its own data; nobody else reads it.
file: clients.csv               # beside this one: .csv, .csv.gz, .parquet; or files: [a.csv, b.csv]
separator: ","                  # between two cells of a csv file
decimal: "."                    # "," where one half is 0,5
blank: ["", NA]                 # texts that stand for a missing value

id:                             # what the firms know a client by: the same in all of them
  column: client
  type: number                  # whole numbers; text: the first 63 bits of its sha256 are used
label:
  column: paid_back
  classes: ["no", "yes"]        # class 0, class 1, ...; the firms agree on their order

features:
  income:
    type: number
    low: 0                      # legal range; leave an end out where there is none
    high: 1000000
    log: true                   # sign(value) * log(1 + |value|) first
    standardise: true           # centre and spread of the training rows
    missing: true               # may be blank: a feature of its own says so
  age:
    type: number
    low: 18
    high: 110
    centre: 45                  # (value - centre) / spread, the same in every firm: what firms who
    spread: 15                  # average their models need
  housing:
    type: category
    levels: [rent, own, other]
unused: [name, street]          # columns that are not used; `others` for all the rest

parts:                          # firms who hold the same clients write the same here
  folds:                        # of 5 folds; 5 consecutive seeds contest every client once
    training: 3
    validation: 1               # clients whom both predict, for the joint table
    contested: 1                # clients for whom the firms compete
                                # held_out: test cases of your own; common: clients whom all serve
  key: loans-2026               # another key, another division
"""

PARQUET = """\
# A column says which row is for what; clients of the future have no label yet.
file: clients.parquet
id:
  column: client
  type: text                    # the first 63 bits of its sha256 are used
label:
  column: paid_back
  classes: [false, true]        # class 0, class 1
features:
  income: {type: number, low: 0, log: true, standardise: true}
  housing: {type: category, levels: [rent, own, other], missing: true}
unused: others
parts:
  column: part                  # training, validation, contested, held_out, common or unused
  seed: seed                    # may be left out; the seed for which a row counts, blank for all
"""

IMAGES = """\
# A sub-folder a class, PNG or JPEG: photos/bag/17.png
images:
  folder: photos
  size: [8, 8]                  # height, width: of every image
  colour: grey                  # or rgb
id:
  type: number                  # an image's id is its file's name without the ending; or text
label:
  classes: [bag, shoe]          # sub-folders: class 0, class 1, ...
parts:
  folds: {training: 3, held_out: 1}
  key: photos-2026
"""

EXAMPLES = {"csv": CSV, "parquet": PARQUET, "images": IMAGES}

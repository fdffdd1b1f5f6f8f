"""Secure aggregation: models are added up, and nobody sees a single one.

The protocol is that of Bonawitz et al. (CCS 2017, "Practical Secure Aggregation"), which SecAgg+
(Bell et al. 2020, arXiv 2009.11248) thins out to a graph of neighbours. With as many firms as a
consortium has (tens), the safe number of neighbours is all the others, so here all are.

A round asks each firm four times:

1. `Keys`: it draws secrets for the round, and tells two public keys and its number of examples.
2. `Deal`: it deals each other firm a share of two secrets, sealed for that firm: the seed b_u of
   its own mask, and the key s_u of its masks with the others.
3. `Offer`: it trains, and answers its model times n_u / sum n, in fixed point modulo 2^64, plus
   stream(b_u), plus stream(s_uv) for each v after it by name, minus it for each v before.
4. `Unmask`: it gives its share of b_u for each firm whose model came, of s_u for each that fell
   silent after it had dealt. t shares are a secret, t - 1 are nothing (`exchange.threshold`).

The operator adds up what came, takes the streams off, and has the sum, exactly that of the models
in fixed point. A firm checks what it is asked (`masker.Masker`): it never gives both shares of
another in a round, puts one model only under one set of masks, and helps a model of its own into
the sum of one set of firms only, however often a round is held and under whatever contract.

**What is assumed.** An operator that looks at all it gets but keeps to the protocol (honest but
curious), and t - 2 firms at most that tell it what they know. Beyond that, t > n/2 keeps an
operator that tells firms different stories from both secrets of a firm, where no firm helps it. In
a deployment it cannot hand out keys of its own in the place of a firm's, nor invent firms: each
firm signs what it advertises, and deals to keys only that a firm whose key it has pinned signed for
this study, contract, seed and round (`parties.seals`). A simulation signs nothing. A firm that lies
can spoil a sum: of single models nothing is checked but their layout.

Both sides compute `shamir`, `words` and `keys`; `masker` is the firm's side.
"""

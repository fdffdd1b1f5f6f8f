#!/bin/sh
# {{ firm }}: stop your node, then your desk. What was learnt and logged stays.
{% set stops = true %}
{% include "head.sh" %}
{% include "stop.sh" %}
end supernode flower-supernode
end desk simulations.deploy

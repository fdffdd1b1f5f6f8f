#!/bin/sh
# Operator: stop the SuperLink. A run that is going on is stopped too; results so far stay in run/.
{% set stops = true %}
{% include "head.sh" %}
{% include "stop.sh" %}
end superlink simulations.deploy

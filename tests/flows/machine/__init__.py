"""Stateful property tests of the outbound half: plans of any interleaving, a model of Marketo's queue, and a judge."""

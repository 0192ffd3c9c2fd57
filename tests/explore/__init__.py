"""Tests of hwsim.explore."""

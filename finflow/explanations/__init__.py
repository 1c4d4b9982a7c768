"""Why a policy traded: decision cards, attributions of inputs, return and risk, calibration of the critic."""

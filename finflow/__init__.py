"""FinFlow: portfolio reinforcement learning whose numbers can be believed."""

import os

# Before torch is imported: spinning OpenMP threads make an update many times slower beside any other process.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

"""The simulated market: one ledger, batched episodes, the reward, offline data, Gymnasium environments."""

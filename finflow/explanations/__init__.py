"""Why a policy traded: exact where the method allows it, measured against reality where it does not."""

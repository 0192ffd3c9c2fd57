"""What every search for tilings shares: goals, limits of the machine, and the form of an answer."""

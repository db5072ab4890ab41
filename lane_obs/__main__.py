"""`python -m lane_obs`: the same as the command `lane-obs`."""

from lane_obs.cli import main

if __name__ == "__main__":
    main()

"""python -m valkyr.cli"""

from valkyr.cli.main import main

if __name__ == "__main__":
    main()

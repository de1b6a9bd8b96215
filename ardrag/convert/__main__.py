"""`python -m ardrag.convert`: the command lies with the pipelines, since what it writes is one."""

import sys

from ardrag.home import import_part


if __name__ == "__main__":
    sys.exit(import_part("pipelines.convert").main())

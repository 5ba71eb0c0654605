"""``python -m pymlp.cli``, the same as the ``pymlp`` script."""

from pymlp.cli.application import main

main()

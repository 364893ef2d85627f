"""Models over HTTP: requests become sequences of one live run. It knows no backend."""

"""The web page. Start it with `make app`, `captioner app` or `streamlit run app.py`."""

from captioner.page.main import main

main()

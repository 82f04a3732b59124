"""The web page. Start it with `make app`, `captioner app` or `streamlit run app.py`."""

import streamlit as st

with st.spinner("captioner …"):  # the first visitor waits for imports
    from captioner.page.main import main

main()

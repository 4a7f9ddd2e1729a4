"""Home, and what the web server answers beside the pages: Streamlit runs this file as a page, and the server imports it."""

from streamlit.starlette import App

from robustft import server
from robustft.ui import home

if __name__ == "__main__":
    home.draw()
else:
    app = App(__file__, routes=server.routes())

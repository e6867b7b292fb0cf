import pytest

PATIENCE = 600_000  # milliseconds: a busy machine makes a test slow, not red


@pytest.fixture(scope="module")
def browser(browser):
    """Give the browser of all tests, with pages that wait long before they give up."""
    with pytest.MonkeyPatch.context() as patch:
        new_page = browser.new_page

        def patient(**options):
            page = new_page(**options)
            page.set_default_timeout(PATIENCE)
            return page

        patch.setattr(browser, "new_page", patient)
        yield browser

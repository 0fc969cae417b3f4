"""The page in a real browser: as a person sorts, filters, opens and compares, by pointer and by keyboard."""

import json

import pytest

from tests.report.browser import Browser
from tests.report.conftest import Report

SEARCH = "Filter runs by any word"
SECTIONS = ["glance", "targets", "seeds", "runs", "verdicts", "failures", "configs", "provenance"]


def cells(browser: Browser, column: int) -> list[str]:
    """The texts of one column of the table of runs."""
    return browser.run(f"[...document.querySelectorAll('#runs tbody tr')].map(r => r.cells[{column}].innerText)")


def header(browser: Browser, name: str) -> int:
    names = browser.run("[...document.querySelectorAll('#runs thead th')].map(h => h.textContent)")
    return names.index(name)


def press_header(browser: Browser, name: str) -> str | None:
    place = header(browser, name)
    browser.run(f"document.querySelectorAll('#runs thead th')[{place}].querySelector('button').click()")
    return browser.run(f"document.querySelectorAll('#runs thead th')[{place}].getAttribute('aria-sort')")


def enter(browser: Browser, label: str, text: str) -> None:
    """Set the search field or one of the choices beside it, by its label."""
    field = f"document.querySelector('#runs .tools [aria-label={json.dumps(label)}]')"
    browser.run(f"{field}.value = {json.dumps(text)}")
    for event in ("input", "change"):
        browser.run(f"{field}.dispatchEvent(new Event('{event}'))")


def focused(browser: Browser) -> str:
    return browser.run("document.activeElement.innerText || document.activeElement.getAttribute('aria-label')")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_draws_without_a_complaint_a_request_or_an_overflow(
    browser: Browser, report: Report, width: int, dark: bool
) -> None:
    browser.open(report.page, width=width, dark=dark)
    browser.run("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    browser.wait("document.querySelectorAll('.problem .plot').length > 12")
    assert browser.complaints == []
    assert set(browser.requests) <= {report.page.as_uri(), "about:blank", "data:,"}
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.run("[...document.querySelectorAll('main > section')].map(each => each.id)") == SECTIONS
    light = browser.run("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] > 128")
    assert light != dark
    # Nothing sticks out of its card.
    wide = (
        "[...document.querySelectorAll('.card, .tile')].filter(each => each.scrollWidth > each.clientWidth + 1)"
        ".map(each => each.className + ': ' + each.innerText.slice(0, 60))"
    )
    assert browser.run(wide) == []


def test_text_of_the_store_is_never_markup(shown: Browser) -> None:
    assert shown.run("document.querySelectorAll('main b:not(.fact b), main script').length") == 0
    assert "</script><b>NaN</b>" in shown.run("document.querySelector('#failures pre').textContent")


def test_headers_sort(shown: Browser) -> None:
    assert press_header(shown, "LLC") == "ascending"
    column = header(shown, "LLC")
    values = [float(text.split(" ")[0]) for text in cells(shown, column) if text[0].isdigit()]
    assert len(values) == 38
    assert values == sorted(values)
    assert press_header(shown, "LLC") == "descending"
    texts = cells(shown, column)
    assert float(texts[0].split(" ")[0]) == max(values)
    assert texts[38][0] == "–", "what has no value comes last, whichever way"
    assert press_header(shown, "Verdict") == "ascending"
    assert shown.run("document.querySelectorAll('#runs th[aria-sort]').length") == 1
    assert cells(shown, header(shown, "Verdict"))[0].strip().endswith("reliable")


def test_filters(shown: Browser) -> None:
    told = "document.querySelector('#runs [role=status]').textContent"
    assert shown.run(told) == "45 of 45 runs"
    shown.run("document.querySelector('#runs input[type=search]').focus()")
    shown.type("sgld step_size=0.001 training.seed=1")
    assert shown.run(told) == "3 of 45 runs"
    enter(shown, "All verdicts", "failed")
    assert shown.run(told) == "0 of 45 runs"
    assert "No run fits" in shown.run("document.querySelector('#runs tbody').innerText")
    enter(shown, SEARCH, "")
    assert shown.run(told) == "2 of 45 runs"


def test_rows_come_a_page_at_a_time(shown: Browser) -> None:
    assert len(cells(shown, 1)) == 40
    shown.run("document.querySelector('#runs .pager button:last-child').click()")
    assert len(cells(shown, 1)) == 5


def test_a_run_opens_by_keyboard_and_gives_the_focus_back(shown: Browser, report: Report) -> None:
    press_header(shown, "LLC")
    shown.run("document.querySelector('#runs .run-link').focus()")
    links = "[...document.querySelectorAll('#runs .run-link')]"
    first, second = shown.run(f"{links}.slice(0, 2).map(each => each.innerText.trim())")
    shown.press("Enter")
    assert shown.run("document.querySelector('dialog').open")
    assert focused(shown).strip() == first
    assert shown.run("location.hash") == f"#run_{first}"
    text = shown.run("document.querySelector('dialog').innerText")
    for words in ("R-hat", "Virial", "Running LLC", "Configuration", "Provenance", "analysis.json"):
        assert words in text
    assert shown.run("document.querySelectorAll('dialog .plot').length") == 3
    link = shown.run("document.querySelector('dialog .links a').href")
    assert link.startswith(report.root.as_uri())
    assert link.endswith(f"run_{first}/analysis.json")
    shown.press("ArrowRight")
    assert focused(shown).strip() == second
    shown.press("Escape")
    assert not shown.run("document.querySelector('dialog').open")
    assert focused(shown).strip() == first
    shown.wait("location.hash === ''")  # the browser goes back in its history on its own time
    assert shown.complaints == []


def test_tab_reaches_the_sections_and_enter_sorts(shown: Browser) -> None:
    shown.press("Tab")
    assert focused(shown) == "Skip to the table of runs"
    shown.press("Tab")
    assert focused(shown) == "At a glance"
    shown.run("document.querySelectorAll('#runs thead button')[0].focus()")
    shown.press("Enter")
    assert shown.run("document.querySelector('#runs th[aria-sort]').innerText").startswith("Run")


def test_a_failed_run_tells_its_error_and_traceback(browser: Browser, report: Report) -> None:
    browser.open(report.page, f"#{report.jobs[0].run_id}")
    text = browser.run("document.querySelector('dialog').innerText")
    assert "the loss is <b>NaN</b>" in text
    assert "FloatingPointError" in text
    assert browser.complaints == []


def test_runs_are_compared(shown: Browser, report: Report) -> None:
    assert shown.run("document.querySelector('#runs .primary').disabled")
    pair = [report.jobs[10], report.jobs[25]]  # SGLD on two targets
    names = [job.run_id.removeprefix("run_") for job in pair]
    for name in names:
        shown.run(f"document.querySelector('#runs [aria-label=\"Compare {name}\"]').click()")
    shown.run("document.querySelector('#runs .primary').click()")
    assert shown.run("[...document.querySelectorAll('dialog thead button')].map(each => each.innerText)") == names
    assert shown.run("[...document.querySelectorAll('dialog th code')].map(each => each.innerText)") == [
        "training.seed"
    ]
    assert shown.run("[...document.querySelectorAll('dialog td code')].map(each => each.innerText)") == ["0", "1"]


def test_the_unit_of_cost_is_chosen(shown: Browser) -> None:
    def words() -> str:
        return shown.run("document.querySelector('.problem').innerText")

    assert "MCSE² × FGE" in words()
    shown.run("document.querySelectorAll('#targets .segments button')[1].click()")
    assert "MCSE² × seconds" in words()
    assert "Convergence by seconds of computation" in words()


def test_colours_are_chosen_and_kept(browser: Browser, report: Report) -> None:
    browser.open(report.page)
    ground = "getComputedStyle(document.body).backgroundColor"
    light = browser.run(ground)
    for name in ("light", "dark"):
        browser.run("document.getElementById('theme').click()")
        assert browser.run("document.documentElement.dataset.theme") == name
    assert browser.run(ground) != light
    browser.open(report.page)
    assert browser.run(ground) != light
    browser.run("document.getElementById('theme').click()")
    assert browser.run("document.documentElement.dataset.theme === undefined")


def test_a_curve_is_read_out_under_the_pointer(shown: Browser) -> None:
    where = json.dumps("document.querySelector('.problem .plot-box')")
    shown.run(f"eval({where}).scrollIntoView({{block: 'center'}})")
    shown.run(
        f"(box => box.dispatchEvent(new PointerEvent('pointermove', {{clientX: box.getBoundingClientRect().right - 5,"
        f" clientY: box.getBoundingClientRect().top + 5, bubbles: true}})))(eval({where}))"
    )
    assert "seed 1: " in shown.run("document.getElementById('tip').innerText")

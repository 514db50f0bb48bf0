"""The site's pages: sources are in the bibliography, terms in the glossary, numbers in the stored results.

A number in the README, on the front page or in the overview is ours, and then it is written anew here from its
source; or it is worked out by hand, and then it is computed here; or it is somebody else's, and then its paragraph has
a citation.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import mean, median

import pytest

from peftlab.bench.results import Results
from peftlab.course.lessons import all_lessons
from peftlab.show import palette
from peftlab.show.lora_figures import accuracies
from peftlab.show.tiny_figures import training_record
from peftlab.tasks import models

ROOT = Path(__file__).resolve().parents[1]
BOOK, DATA = ROOT / "book", ROOT / "data"
PAGES = ("intro", "overview", "models", "glossary", "notation", "bibliography", "authoring", "for_teachers")
ARXIV = re.compile(r"(?:arxiv\.org/(?:abs|pdf)/|arXiv:)(\d{4}\.\d{4,5})", re.IGNORECASE)
DOI = re.compile(r"doi\.org/(10\.\d{4,}/[^\s)\"'>\]]*[\w])")
NUMBER = re.compile(r"(?<![\w.@/:-])\d+(?:\.\d+)?(?= ?%)|(?<![\w.@/:-])\d+\.\d+(?![\w.]*\d*/)")
TERM = re.compile(r"\{term\}`(?:[^`<]*<)?([^`<>]+)>?`")
NEUTRAL = {"#FFFFFF", "#F2F2F2", "#DDDDDD", "#222222"}
# Versions, of Python, of a licence, of a package; and the settings of a training run and of drawing a text.
NOT_MEASURED = {"3.10", "3.11", "3.12", "3.14", "4.0", "3.0", "0.9", "0.95", "0.1", "0.8"}
NOT_MEASURED |= {"0.4", "1.0", "14.3", "426.0"}


def page(name: str) -> str:
    """The Markdown of a page of the site, or of the README."""
    if name == "tiny card":
        return (DATA / "models" / "tiny" / "README.md").read_text(encoding="utf-8")
    folder = ROOT if name == "README" else BOOK
    return (folder / f"{name}.md").read_text(encoding="utf-8")


def percent(value: float, digits: int = 0) -> str:
    return f"{100 * value:.{digits}f} %"


# ---- sources ------------------------------------------------------------------------------------------------------


def entries() -> dict[str, dict[str, str]]:
    """The bibliography, by key; references.bib keeps to one field a line."""
    found: dict[str, dict[str, str]] = {}
    for block in re.split(r"^@\w+", (BOOK / "references.bib").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        key = re.match(r"\{([^,]+),", block).group(1)
        assert key not in found, f"{key} is in references.bib twice"
        found[key] = dict(re.findall(r"^  (\w+) = \{(.*)\},$", block, flags=re.MULTILINE))
    return found


ENTRIES = entries()


def citing_texts() -> list[Path]:
    return sorted([*BOOK.glob("*.md"), *(ROOT / "notebooks").glob("*.py"), *(ROOT / "peftlab/course").rglob("*.py")])


@pytest.mark.parametrize("path", citing_texts(), ids=lambda path: path.stem)
def test_every_cited_paper_is_in_the_bibliography(path):
    text = path.read_text(encoding="utf-8")
    known = {e.get("eprint") for e in ENTRIES.values()} | {e.get("doi") for e in ENTRIES.values()}
    missing = {*ARXIV.findall(text), *DOI.findall(text)} - known
    assert not missing, f"{path.name} cites {sorted(missing)}, which book/references.bib does not have"


@pytest.mark.parametrize("name", PAGES)
def test_every_citation_key_exists(name):
    cited = {key.strip() for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", page(name)) for key in keys.split(",")}
    assert cited <= set(ENTRIES), f"{name}.md cites {sorted(cited - set(ENTRIES))}"


@pytest.mark.parametrize("key", ENTRIES)
def test_an_entry_says_who_what_when_and_where(key):
    entry = ENTRIES[key]
    assert all(entry.get(field) for field in ("title", "author", "year", "url")), f"{key} lacks a field"
    assert re.fullmatch(r"(18|19|20)\d\d", entry["year"])
    assert key.endswith(entry["year"]) or entry["year"] in key, f"{key} is of {entry['year']}"
    if eprint := entry.get("eprint"):
        assert re.fullmatch(r"\d{4}\.\d{4,5}", eprint) and entry["url"] == f"https://arxiv.org/abs/{eprint}"
        assert entry["year"][2:] == eprint[:2], f"{key}: an arXiv id begins with year and month"
    elif doi := entry.get("doi"):
        assert entry["url"] == f"https://doi.org/{doi}"
    else:
        assert re.fullmatch(r"https://[\w.-]+(/[\w./-]*)?", entry["url"])


def test_no_paper_stands_twice():
    for field in ("eprint", "doi", "title"):
        values = [entry[field].lower() for entry in ENTRIES.values() if field in entry]
        assert len(values) == len(set(values))


# ---- terms --------------------------------------------------------------------------------------------------------


def glossary() -> list[str]:
    body = re.search(r"```\{glossary\}\n(.*?)```", page("glossary"), flags=re.DOTALL).group(1)
    return [line for line in body.splitlines() if line and not line.startswith(" ")]


def test_the_glossary_is_sorted_and_says_nothing_twice():
    terms = glossary()
    assert terms == sorted(terms, key=str.casefold)
    assert len({term.casefold() for term in terms}) == len(terms)
    assert 60 <= len(terms) <= 110  # a glossary, not an encyclopedia; it grows with the lessons, so from 90 to 110


def test_every_term_has_a_definition_of_its_own():
    body = page("glossary").split("```{glossary}\n")[1]
    assert len(re.findall(r"^\S.*\n  \S.*\.", body, flags=re.MULTILINE)) == len(glossary())


@pytest.mark.parametrize("name", PAGES)
def test_every_term_that_is_used_exists(name):
    unknown = set(TERM.findall(page(name))) - set(glossary())
    assert not unknown, f"{name}.md links to {sorted(unknown)}, which the glossary does not explain"


# ---- pictures and links -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_every_picture_exists_and_has_alt_text(name):
    text = page(name)
    assert "![" not in text, "use {figure} with :alt:"
    for path, options in re.findall(r"```\{(?:figure|image)\} (\S+)\n((?::.*\n)*)", text):
        assert (BOOK / path).exists(), path
        alt = re.search(r"^:alt: (.+)$", options, flags=re.MULTILINE)
        assert alt and len(alt.group(1)) > 40, f"{path} in {name}.md needs an alt text that says what it shows"


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name):
    made = {f"../notebooks/{each.file}.ipynb" for each in all_lessons()}
    made |= {f"results/{path.stem}.md" for path in Results.folder().glob("*.json")}  # a page for each
    made |= {"atlas.md", "side_by_side.md", "lessons.md", "results.md", "builds.md"}  # what site/build.py makes
    for target in re.findall(r"\]\(([^)#]+)\)", page(name)):
        if not target.startswith("https://"):
            assert (BOOK / target).exists() or target in made, f"{name}.md links to {target}"


SVGS = sorted(p for p in (BOOK / "assets").glob("*.svg") if "<desc" in p.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", SVGS, ids=lambda path: path.stem)
def test_a_drawing_explains_itself_and_keeps_to_the_palette(path):
    text = path.read_text(encoding="utf-8")
    assert "<title" in text and 'role="img"' in text and "viewBox" in text
    allowed = NEUTRAL | {v for v in vars(palette).values() if isinstance(v, str) and v.startswith("#")}
    assert set(re.findall(r"#[0-9A-Fa-f]{6}\b", text)) <= allowed
    assert min(map(int, re.findall(r'font-size="(\d+)"', text))) >= 15, "too small on a phone"


# ---- lessons ------------------------------------------------------------------------------------------------------


def test_the_front_page_lists_every_lesson():
    text = page("intro")
    for lesson in all_lessons():
        assert f"[{lesson.name}](../notebooks/{lesson.file}.ipynb)" in text, f"intro.md lacks {lesson.name}"


def test_the_labs_fit_into_two_hours():
    times = {each.number: (each.minutes, each.core_minutes) for each in all_lessons()}
    labs = [row for row in page("for_teachers").splitlines() if row.startswith("| **")]
    assert labs
    for lab in labs:
        total = 0
        for number, core, minutes in re.findall(r"\[(\w\w)\]\([^)]*\)( core,)? (\d+) min", lab):
            assert int(minutes) == times[number][bool(core)], (
                f"lesson {number} takes {times[number]}, the lab says {minutes}"
            )
            total += int(minutes)
        talk = re.search(r"(\d+) min talk", lab)
        assert 0 < total + (int(talk.group(1)) if talk else 0) <= 120, lab


# ---- numbers ------------------------------------------------------------------------------------------------------


def measured() -> dict[str, list[str]]:
    """What the pages may quote of our own results, by page."""
    stored, seconds = Results.load("scissors"), Results.load("step_time")["cells"]["seconds"]
    cells = stored["cells"]

    def at(cell: str) -> float:
        found = accuracies(stored, cell)
        assert len(found) == 5  # "five runs each"
        return mean(found)

    def behind(cell: str) -> list[float]:
        return [a - b for a, b in zip(accuracies(stored, "full"), accuracies(stored, cell), strict=True)]

    kinds = {"only the last layer": "head", "LoRA on two kinds of matrices": "lora_qv/8",
             "LoRA on all six kinds": "lora_all/8", "everything": "full"}  # fmt: skip
    rows = [
        f"| {name} | {cells[f'{cell}/0']['trainable']:,} | {percent(at(cell), 1)} |" for name, cell in kinds.items()
    ]
    full, lora = cells["full/0"]["total"], cells["lora_qv/8/0"]["trainable"]
    curve = {r: at(f"cut/top/{r}") for r in (0, 1, 4, 8, 384)}
    assert curve[384] - curve[8] < 0.03  # "is flat from there", "nearly enough"
    energy = mean(e["8"] for seed in range(5) for e in cells[f"spectrum/{seed}"]["energy"].values())
    assert sum(d > 0 for d in behind("lora_qv/8")) == 5 and sum(d > 0 for d in behind("lora_all/8")) == 4
    assert at("control/random_of_equal_energy/8") > curve[8] - 0.05  # "come close"
    chart = (
        f"accuracy climbs from {curve[0]:.2f} at none to {curve[1]:.2f} at one, {curve[4]:.2f} at four and "
        f"{curve[8]:.2f} at eight, and is flat from there. Keeping random directions it climbs much later: "
        f"{at('cut/random/16'):.2f} at sixteen, {at('cut/random/128'):.2f} at 128. Guessing would reach {1 / 12:.2f}"
    )
    assert energy < 0.5  # "less than half of the change"
    # SmolLM2's query and value matrices, in each of 30 blocks: 576 to 576 and 576 to 192.
    train = 30 * 8 * ((576 + 576) + (576 + 192))
    of_all = train + 134_515_008
    h100 = json.loads((BOOK / "assets/h100_single_runs.json").read_text(encoding="utf-8"))
    alone = h100["cells"]["tokens_per_second_without_checkpointing"]["lora_by_hand_compiled"]
    large = Results.load("qlora_scale")["cells"]

    def three(cell: str, key: str) -> list[float]:
        return [large[f"6.7B/{cell}/{round_}"][key] for round_ in range(3)]

    def peak(cell: str) -> str:
        assert len(set(three(cell, "measured"))) == 1  # "three rounds gave the same bytes"
        return f"{three(cell, 'measured')[0] / 2**30:.1f}"

    speed = {method: three(f"{method}/plain", "tokens_a_second") for method in ("lora", "full")}
    assert max(speed["lora"]) < min(speed["full"])  # "in all three rounds"
    return {
        "README": [
            f"it climbs from {curve[0]:.2f} at none to {curve[1]:.2f} at one, {curve[4]:.2f} at four and "
            f"{curve[8]:.2f} at eight, and is flat from there. With random directions it is still at "
            f"{at('cut/random/16'):.2f} at sixteen, and reaches {at('cut/random/128'):.2f} at 128.",
            "though they hold less than half of the change",
            f"{train:,} of {of_all:,} parameters train ({train / of_all:.2%})",
        ],
        "intro": [
            chart,
            f"The whole change gives {percent(curve[384])}, eight directions give {percent(curve[8])}",
        ],
        "overview": [
            *rows,
            chart,
            f"{full / 1e6:.1f} million numbers, a file of {4 * full / 1e6:.0f} MB",
            f"for {percent(at('full'), 1)} of definitions",
            f"The result is {percent(at('lora_qv/8'), 1)}, "
            f"and what we have to keep is a file of {4 * lora / 1e6:.2f} MB",
            f"keep {percent(curve[8])} of the answers right, although they hold only {percent(energy)} of the change",
            f"is {full / lora:.0f} times smaller than the model",
            f"took {percent(seconds['lora_qv'] / seconds['full'])} of the time of a full one; on all kinds, "
            f"{percent(seconds['lora_all'] / seconds['full'])}",
            f"in all five runs, by {100 * mean(behind('lora_qv/8')):.1f} points on average",
            f"in four of five, by {100 * mean(behind('lora_all/8')):.1f} points",
            f"gives {percent(at('head'), 1)} for {cells['head/0']['trainable']:,} numbers",
            f"{10 * 4 * full / 1e6:.0f} MB. With LoRA they are one large square and ten tiny dots, "
            f"{4 * (full + 10 * lora) / 1e6:.0f} MB",
            f"a model of {h100['settings']['parameters'] / 1e9:.1f} billion parameters took "
            f"{peak('full/checkpointing')} GiB",
            f"{peak('lora/checkpointing')} GiB with LoRA and {peak('qlora/checkpointing')} GiB with QLoRA",
            f"LoRA took {peak('lora/plain')} GiB",
            f"{median(speed['lora']):,} against {median(speed['full']):,} tokens a second, in the middle. Written by "
            f"hand and compiled it reached {alone:,}",
        ],
    }


def models_and_data() -> list[str]:
    """What the page on models and data says: its two tables, and the sentences that draw on them."""
    local, tasks = Results.load("local_models")["cells"], Results.load("tiny_tasks")["cells"]
    record, names = training_record(), ("tiny", "minilm", "smollm2")
    kinds = ("lora", "full")

    def row(label: str, *values: str) -> str:
        return f"| {label} | {' | '.join(values)} |"

    def over_seeds(kind: str, task: str, measure: str) -> list[float]:
        return [tasks[f"{kind}/{task}/{seed}"][measure] for seed in (0, 1, 2)]

    def task_row(label: str, task: str, measure: str, form: str) -> str:
        values = [tasks[f"frozen/{task}"][measure], *(mean(over_seeds(kind, task, measure)) for kind in kinds)]
        return row(label, *(form.format(value).replace("%", " %") for value in values))

    for task in ("define", "topic"):  # "even a little lower ..., by more than the seeds differ"
        assert max(over_seeds("lora", task, "loss")) < min(over_seeds("full", task, "loss"))
        rates = Results.load("tiny_tasks")["settings"]["candidates"]
        for kind in kinds:  # "at the low end", and inside the grid
            best = min(rates[kind], key=lambda rate: tasks[f"choose/{kind}/{task}/{rate}"])
            assert best in rates[kind][1:3]
    right = [mean(over_seeds(kind, "topic", "right")) for kind in kinds]
    assert 0 < right[1] - right[0] < 0.02  # "ahead by one point"
    copied = tasks["copy/verse"]["chrf"]
    assert max(over_seeds("lora", "verse", "chrf") + over_seeds("full", "verse", "chrf")) < copied
    assert tasks["frozen/verse"]["loss"] / mean(over_seeds("lora", "verse", "loss")) == pytest.approx(2, abs=0.1)
    saved = {name: 1 - local[f"lora/{name}"]["seconds"] / local[f"full/{name}"]["seconds"] for name in names}
    points = record["chosen"]["curve"]
    kept = min(points, key=lambda point: point["held"])
    bytes_read = sum(source["bytes"] for source in record["corpus"]["splits"]["train"].values())
    lora = tasks["lora/define/0"]
    quotes = dict(tasks["lora/verse/0"]["writes"]), dict(tasks["lora/define/0"]["writes"])
    drawn = Results.load("tiny_writes")["cells"]["drawn/Emma was"]
    return [
        row("on disk", *(f"{local[f'disk/{name}']} MB" for name in names)),
        row("a LoRA step", *(f"{local[f'lora/{name}']['seconds']:.2f} s" for name in names)),
        row("a step of full fine-tuning", *(f"{local[f'full/{name}']['seconds']:.2f} s" for name in names)),
        row("memory, LoRA", *(f"{local[f'lora/{name}']['peak_mb']:,} MB" for name in names)),
        row("memory, full", *(f"{local[f'full/{name}']['peak_mb']:,} MB" for name in names)),
        row("parameters", *(f"{known.parameters / 1e6:.1f} million" for known in models.KNOWN.values())),
        f"of which {local['python']} MB are Python",
        f"LoRA saves {percent(saved['tiny'])} of a step's time with the tiny model, {percent(saved['minilm'])} with "
        f"MiniLM and {percent(saved['smollm2'])} with SmolLM2",
        f"{record['parameters'] / 1e6:.1f} million parameters on {bytes_read / 1e6:.1f} MB",
        f"perplexity on held-out documents is {record['test']['all']['perplexity']}",
        f"*{drawn.split(' family')[0]} family.*",
        f"from {points[0]['train']:.1f} to {points[-1]['train']:.1f}",
        f"falls to {kept['held']:.2f} at {kept['tokens'] / 1e6:.0f} million tokens",
        f"rises a little, to {points[-1]['held']:.2f}",
        task_row("define a word | loss", "define", "loss", "{:.2f}"),
        task_row("write a definition for a topic | loss", "topic", "loss", "{:.2f}"),
        task_row("| topic recognised", "topic", "right", "{:.0%}"),
        task_row("modern to King James English | loss", "verse", "loss", "{:.2f}"),
        task_row("| chrF", "verse", "chrf", "{:.1f}"),
        f"LoRA trains {lora['trainable']:,} numbers beside {lora['total'] - lora['trainable']:,} frozen ones",
        f"Guessing would give {percent(1 / 12)}",
        f"has a chrF of {copied:.1f}",
        f'"{next(text for prompt, text in quotes[0].items() if "teaches wisdom" in prompt)}"',
        f'*filter* as "{next(text for prompt, text in quotes[1].items() if "filter" in prompt)}"',
    ]


def tiny_card() -> list[str]:
    """What the tiny model's card says that its training record or its stored samples know."""
    record, writes = training_record(), Results.load("tiny_writes")["cells"]
    train, points = record["corpus"]["splits"]["train"], record["chosen"]["curve"]
    total = sum(source["bytes"] for source in train.values())
    kept, candidates = min(points, key=lambda point: point["held"]), record["candidates"]
    best = [run["best"] for run in candidates]
    assert max(best) - min(best) <= 0.034
    twice = {(run["lr"], run["epochs"]): run["best"] for run in candidates}
    assert twice[0.002, 24] > twice[0.002, 12] and twice[0.004, 24] < twice[0.004, 12]
    assert len({run["lr"] for run in candidates}) == 4 and len(candidates) == 6
    runs = [
        f"| **{run['lr']:g}** | **{run['epochs']:g}** | **{run['best']:.3f}** |"
        if run["best"] == min(best)
        else f"| {run['lr']:g} | {run['epochs']:g} | {run['best']:.3f} |"
        for run in candidates
    ]
    tested = [
        f"| {record['test'][source]['tokens']:,} | {record['test'][source]['perplexity']} | "
        f"{record['test'][source]['bits_per_character']:.2f} |"
        for source in train
    ]
    samples = [
        writes["drawn/Emma was"].removeprefix("Emma was "),
        writes["likeliest/river:"].removeprefix("river: "),
        writes["drawn/small animal:"].removeprefix("small animal: "),
        writes["likeliest/Congress should"].removeprefix("Congress should ").partition(" The United States")[0],
    ]
    assert ", the King of the Swedes" * 3 in writes["likeliest/The president of the United States"].replace(
        ", and", ","
    )
    passes = kept["step"] * 128 * 256 / sum(source["tokens"] for source in train.values())
    assert passes == pytest.approx(9, abs=0.1)  # "about nine passes"
    return [
        *runs, *tested, *(f'"{text}"' for text in samples),
        *(f"{percent(source['bytes'] / total)} |" for source in train.values()),
        f"{record['parameters']:,} parameters, stored in 16 bits "
        f"({(DATA / 'models/tiny/model.safetensors').stat().st_size / 1e6:.1f} MB)",
        f"language model of {record['parameters'] / 1e6:.1f} million parameters",
        f"{total / 1e6:.1f} MB of English, {sum(s['tokens'] for s in train.values()) / 1e6:.1f} million tokens",
        f"lowest after {kept['step']:,} of {record['chosen']['steps']:,} steps, "
        f"{kept['tokens'] / 1e6:.0f} million tokens",
        f"{record['chosen']['watt_hours']:.1f} Wh for the kept run and "
        f"{sum(run['watt_hours'] for run in candidates):.0f} Wh for all six",
        f"| **all** | {record['test']['all']['tokens']:,} | **{record['test']['all']['perplexity']}** | |",
        f"A perplexity of {record['test']['all']['perplexity']} means",
        "All six lie within 0.034 nats",
        f"from {points[0]['train']:.1f} to {points[-1]['train']:.1f}. The validation loss falls to "
        f"{kept['held']:.2f} at {kept['tokens'] / 1e6:.0f} million tokens, marked by a dot, and then rises a little, "
        f"to {points[-1]['held']:.2f}.",
    ]  # fmt: skip


def worked() -> list[str]:
    """The overview's sums, done again: bytes for each parameter times parameters, GB = 10^9 bytes."""
    parameters, weights, gradients, adamw = 7e9, 2, 2, 8
    rank, d, inner, blocks = 16, 4096, 11008, 32  # a Llama-like model: four square matrices, three of the feed-forward
    adapter = blocks * rank * (4 * (d + d) + 3 * (d + inner))
    adapter_gb = adapter * (4 + 4 + adamw) / 1e9  # weights and gradients in 32 bits
    lora = parameters * weights / 1e9 + adapter_gb
    qlora = parameters * (4.5 - 0.373) / 8 / 1e9 + adapter_gb  # 4-bit levels and doubly quantised scales
    return [
        f"(2 + 2 + 8) \\text{{ bytes}} = {parameters * (weights + gradients + adamw) / 1e9:.0f} \\text{{ GB}}",
        f"16 bytes for each parameter, {16 * parameters / 1e9:.0f} GB",
        f"To *run* the same model you need {parameters * weights / 1e9:.0f} GB",
        f"LoRA keeps {lora:.1f} GB",
        f"QLoRA keeps {qlora:.1f} GB",
        f"{adapter / 1e6:.0f} million parameters at 16 bytes each",
        f"384 rows and 384 columns, {384 * 384:,} numbers",
        f"8 columns and 8 rows, that is {8 * (384 + 384):,} numbers",
    ]


FACTS = {name: facts + (worked() if name == "overview" else []) for name, facts in measured().items()}
FACTS |= {"models": models_and_data(), "tiny card": tiny_card()}


@pytest.mark.parametrize("name", FACTS)
def test_every_number_of_ours_is_the_stored_one(name):
    missing = [fact for fact in FACTS[name] if fact not in page(name)]
    assert not missing, f"{name}.md should say: {missing}"


@pytest.mark.parametrize("name", FACTS)
def test_no_number_stands_without_a_source(name):
    known = set(NUMBER.findall(" ".join(FACTS[name]))) | NOT_MEASURED
    for paragraph in re.split(r"\n\s*\n|\n(?=[-*] |\d+\. )", page(name)):
        if "{cite}" not in paragraph:
            text = re.sub(r"\]\([^)]*\)", " ", paragraph)
            unknown = sorted(set(NUMBER.findall(text)) - known)
            assert not unknown, f"{name}.md: {unknown} in: {paragraph[:80]}"


def test_the_drawings_show_the_same_numbers():
    drawings = {path.stem: path.read_text(encoding="utf-8") for path in SVGS}
    cells = Results.load("scissors")["cells"]
    full, lora = 4 * cells["full/0"]["total"] / 1e6, 4 * cells["lora_qv/8/0"]["trainable"] / 1e6
    for label in (
        f">{10 * full:.0f} MB<",
        f">{full + 10 * lora:.0f} MB<",
        f"{full:.0f} MB once, {lora:.2f} MB for each",
    ):
        assert label in drawings["storage"], label
    squares = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)" height="\1"', drawings["storage"])]
    assert max(squares) ** 2 / min(squares) ** 2 == pytest.approx(full / lora, rel=0.01)  # "areas are to scale"
    sums = " ".join(worked())
    for name, gb in re.findall(r">(LoRA|QLoRA): ([\d.]+) GB<", drawings["memory"]):
        assert f"{name} keeps {gb} GB" in sums


def test_the_net_catches_an_invented_number():
    assert NUMBER.findall("It gained 3.7 points, or 12 %, in lesson 06 (2021).") == ["3.7", "12"]
    assert ARXIV.findall("[Hu](https://arxiv.org/abs/2106.09685), arXiv:2305.14314") == ["2106.09685", "2305.14314"]
    assert TERM.findall("{term}`rank` and {term}`biases <bias>`") == ["rank", "bias"]

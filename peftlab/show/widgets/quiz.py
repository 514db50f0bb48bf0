"""The questions of a lesson as one widget. `peftlab.course.question.quiz` makes it."""

from __future__ import annotations

import traitlets

from peftlab.show.widgets.static_widget import StaticWidget, module
from peftlab.show.widgets.text import as_html

HOW_TO_ANSWER = "To answer, run this cell in JupyterLab, or open the lesson on the course's website."


class QuizWidget(StaticWidget):
    """Choose an option and read what it means; the score counts first tries.

    questions: name, asks, options (text, says, right, unsure) and bridge (file, name) or None, as plain dicts.
    answers: by question's name the places of the options that were tried, in order. Syncs with a live page.
    """

    _esm = module("common.js", "quiz.js")
    heading = traitlets.Unicode("Check yourself").tag(sync=True, static=True)
    questions = traitlets.List(traitlets.Dict()).tag(sync=True, static=True)
    answers = traitlets.Dict().tag(sync=True, static=True)

    def fallback_text(self) -> str:
        lines = [f"{self.heading}: {len(self.questions)} questions"]
        for number, question in enumerate(self.questions, start=1):
            lines += ["", f"{number}. {question['asks']}"]
            lines += [f"   ( ) {option['text']}" for option in question["options"]]
        return "\n".join([*lines, "", HOW_TO_ANSWER])

    def fallback_html(self) -> str:
        questions = "".join(
            f"<li><p>{as_html(question['asks'])}</p><ul>"
            + "".join(f"<li>{as_html(option['text'])}</li>" for option in question["options"])
            + "</ul></li>"
            for question in self.questions
        )
        return f"<p><strong>{as_html(self.heading)}</strong></p><ol>{questions}</ol><p><em>{HOW_TO_ANSWER}</em></p>"

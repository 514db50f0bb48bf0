# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown] tags=["header"]
# # B5 · Validation, seeds, intervals
#
# *20 minutes (12 without the exercises), of which your machine computes for less than half a minute. You need PyTorch basics. No GPU, no network.*

# %% [markdown]
# Two people compare full fine-tuning with LoRA: the same MiniLM, data, code, and 1,200 test definitions. (Full fine-tuning trains all of the model; LoRA freezes it and trains a few new numbers beside it.)

# %%
import torch

from peftlab.bench.results import Results
from peftlab.course import luck
from peftlab.course.exercise import check, hint, solution, use
from peftlab.course.question import predict, quiz
from peftlab.show import luck_figures, plots
from peftlab.show.lora_figures import accuracies
from peftlab.tasks import datasets, metrics, models

plots.style()
stored = Results.load("scissors")  # the runs of lesson 06
full, lora = accuracies(stored, "full"), accuracies(stored, "lora_all/8")
for person, seed in (("first", 2), ("second", 3)):
    print(f"the {person} finds: full fine-tuning {full[seed]:.1%}, LoRA {lora[seed]:.1%}")

# %% [markdown]
# The first writes: LoRA wins by a percentage point. The second: full fine-tuning wins, by more. Only the seed differs. (We picked the two: at the same seed LoRA wins once in five.)
#
# A measured difference is part truth, part luck, and luck has three kinds.
#
# ## Luck of the seed
#
# A **seed** fixes the random choices of a run: here the start of the head and of LoRA's $A$, the order of the data, and dropout. Another seed, another result: **seed variance** ([Dodge et al., 2020](https://arxiv.org/abs/2002.06305)). We stored five runs of each method.

# %%
predict("B5.upsets")

# %%
head, lora_qv, lora_1 = (accuracies(stored, cell) for cell in ("head", "lora_qv/8", "lora_all/1"))
pairs = {("full fine-tuning", "head only"): (full, head),
         ("full fine-tuning", "LoRA, r = 8, query and value"): (full, lora_qv),
         ("full fine-tuning", "LoRA, r = 8, all matrices"): (full, lora),
         ("LoRA, r = 1, all matrices", "LoRA, r = 8, query and value"): (lora_1, lora_qv)}
plots.table([
    {"higher mean": a, "lower mean": b, "points between": 100 * (sum(better) - sum(worse)) / 5,
     "the lower one wins": f"{luck.upsets(better, worse)} of 25"}
    for (a, b), (better, worse) in pairs.items()
], caption="One run of each, all pairs of five seeds, the same 1,200 test definitions")

# %% [markdown]
# A gap of seven points survives every draw. Half a point turns round in 5 of 25 pairs, a quarter of a point in 9. (That depends on the spread, too. And r = 1 ran with the learning rate of r = 8.)
#
# Seed by seed, full fine-tuning is ahead by 0.55 points on average, with a standard error of 0.41 (the spread of the five differences, divided by $\sqrt 5$). With five seeds a 95 % interval takes nearly three of them to each side: about -0.6 to 1.7 points. It holds zero, so we name no winner.
#
# ## Luck of the rows
#
# The test rows are a sample, too. Let a model get the share $p$ of $N$ rows right. A row counts 1 or 0, with variance $p\,(1 - p)$; the mean of $N$ independent rows has a variance $N$ times smaller. The **standard error** of the accuracy is the square root of that.
#
# ### Exercise 1 · The standard error (3 minutes)

# %% tags=["exercise"]
def standard_error(right, N):
    """Of a model that gets `right` of `N` rows right: how far right / N lies from the share of all possible rows."""
    return ...


check("B5.standard_error", standard_error)
# Stuck? Run hint("B5.standard_error", 1), then hint("B5.standard_error", 2), then solution("B5.standard_error").

# %%
standard_error = use("B5.standard_error", standard_error)
for right, N in ((87, 100), (1044, 1200)):
    low, high = metrics.wilson_interval(right, N)
    print(f"{right:4} of {N:4}: 87 %, standard error {standard_error(right, N):.1%}, interval {low:.0%} to {high:.0%}")

# %% [markdown]
# About two standard errors to each side make a 95 % **confidence interval**: over many test sets, such intervals hold the share of all rows there could be 95 times in 100. (Ours are Wilson's (1927), which also behave near 0 and 1.) With 100 rows, 87 % may stand for anything from 79 % to 92 %.

# %% mystnb={"image": {"alt": "Four rows: head only, LoRA on query and value, LoRA on all matrices, full fine-tuning. Five dots in each show the seeds; a bar shows the 95 % interval from 1,200 rows, about four points wide each time. The dots of the two LoRAs lie close together, well inside their bars; those of full fine-tuning spread over half a bar. The bar of the head alone lies far left of the others, which overlap."}}
_ = luck_figures.seeds_and_rows({"head only": head, "LoRA, query and value": lora_qv,
                                 "LoRA, all matrices": lora, "full fine-tuning": full}, rows=1200)

# %% [markdown]
# Two kinds of luck, and neither contains the other. The dots say what other *seeds* do on these rows, the bar how far these *rows* may mislead. Five seeds share their 1,200 rows, so averaging seeds narrows the bar only a little.
#
# ## The same rows for both
#
# The bars of full fine-tuning and LoRA overlap. But both met the *same* rows, and a hard row is hard for both. Separate bars ignore this shared luck.
#
# Of these runs we stored only the accuracies. So take a classifier without training: average MiniLM's sentence vectors for each topic, and answer with the nearest mean. Does it help to add 20 examples of each topic to the first 20?

# %%
data = datasets.load("wordnet_topics")
model, tokenizer = models.load("minilm")
train, test = (luck.sentence_vectors(model, tokenizer, split) for split in (data.train[:480], data.test))
labels, truth = torch.tensor(data.train.labels[:480]), torch.tensor(data.test.labels)


def correct_with(rows):
    means = luck.topic_means(train[rows], labels[rows])  # (12, 384)
    return ((test @ means.T).argmax(1) == truth).float()  # one number for each test row, 1 or 0


# %% tags=["nbval-ignore-output"]
correct = torch.stack([correct_with(luck.examples(labels, each)) for each in (40, 20)])
for each, row in zip((40, 20), correct, strict=True):
    low, high = metrics.wilson_interval(int(row.sum()), len(row))
    print(f"{each} examples of each topic: {row.mean():.1%}, interval {low:.1%} to {high:.1%}")
only_40, only_20 = ((correct[i] > correct[1 - i]).sum().item() for i in (0, 1))
print(f"right with 40 only: {only_40} rows, with 20 only: {only_20}, the same both times: {1200 - only_40 - only_20}")

# %% [markdown]
# ### Exercise 2 · On the same rows (5 minutes)
#
# The **bootstrap** (Efron, 1979): draw $N$ of the $N$ rows, *with replacement*, as if that were a new test set. Take the difference of the two accuracies. Repeat: where do the middle 95 % of the differences lie?

# %% tags=["exercise"]
def paired_interval(correct, draws):
    """(low, high) of 95 % for accuracy of line 0 minus accuracy of line 1. correct: (2, N), 1 where right, else 0."""
    return ...


check("B5.paired_interval", paired_interval)

# %% tags=["nbval-ignore-output"]
paired_interval = use("B5.paired_interval", paired_interval)
low, high = paired_interval(correct, 3000)
print(f"40 examples instead of 20: between {100 * low:+.1f} and {100 * high:+.1f} points")
error = sum(standard_error(int(row.sum()), 1200) ** 2 for row in correct) ** 0.5  # as if each had rows of its own
middle = (correct[0].mean() - correct[1].mean()).item()
print(f"on two separate sets of rows: between {100 * (middle - 2 * error):+.1f} and {100 * (middle + 2 * error):+.1f}")
assert middle - 2 * error < 0 and low > 0.005, "on separate rows zero is possible, on the same rows it is not"
assert 0.6 < only_40 / (only_40 + only_20) < 0.8 and 0.025 < (low + high) / 2 < 0.04 and only_40 + only_20 < 120

# %% [markdown]
# The **paired interval** excludes zero; with separate rows it would not be excluded. Nine rows in ten come out the same both times and say nothing. Of the rest, about seven in ten go to the 40.
#
# It covers the luck of the rows. To draw *other* examples is the seed's kind of luck, and is left out.
#
# ## Luck of choosing
#
# Here are 200 classifiers, each from its own random 20 examples of each topic: 200 seeds of one method. Keep the best one on 100 test rows, then look at it on the other 1,100. (This shows the mistake; no choice in the course rests on it.)

# %%
predict("B5.winner")

# %% mystnb={"image": {"alt": "Line chart of the accuracy of the best of k candidates, k from 1 to 200 on a logarithmic axis. On the 100 rows it was chosen on, it climbs steadily from 0.76 to 0.82. On rows it has never seen, it stays within half a point of 0.76. The gap between the lines is shaded."}} tags=["nbval-ignore-output"]
candidates = torch.stack([correct_with(luck.examples(labels, 20, seed=seed)) for seed in range(200)])
seen, fresh = luck.best_of(candidates, rows=100)  # the mean over 300 draws of the rows
_ = luck_figures.best_of(seen, fresh, rows=100)
print(f"best of 200: {seen[-1]:.1%} where it was chosen, {fresh[-1]:.1%} on fresh rows")
ahead = 100 * (correct[0].mean() - candidates.mean(1))
print(f"the 40 examples of before: ahead of these 200 by {ahead.mean():.1f} points, with a spread of {ahead.std():.1f}")

# %%
assert 0.05 < seen[-1] - seen[0] < 0.07 and 0 < fresh[-1] - fresh[0] < 0.005
assert 2 < ahead.mean() < 100 * middle - 0.2 and 0.6 < ahead.std() < 1.1
assert 0.8 < candidates[:5].mean(0).std() / candidates[0].std() < 0.95, "five seeds narrow the bar only a little"

# %% [markdown]
# Nearly all of the climb is an illusion: about six points where it was chosen, less than half a point on fresh rows. (And the first 20 examples were a little unlucky: against these 200, 40 gain less.)
#
# A learning rate chosen by its test accuracy gains in the same way. Some rates *are* better; the test rows cannot tell you which part is real.
#
# So there are three splits: **training** data to learn from, **validation** data to choose on, **test** data for afterwards. Whoever chooses by the test data has made them validation data. In lesson 06, four methods had three learning rates each, compared on 720 validation definitions. Three of the four winners scored lower on the test, by less than a point. That is within the noise, as one expects of few candidates and many rows.
#
# How many rows does a choice among 200 need?

# %% tags=["nbval-ignore-output"]
from peftlab.show.sliders import drag


def illusion(rows):
    seen, fresh = luck.best_of(candidates, rows)
    return (seen[-1] - fresh[-1]).item()


assert 0.09 < illusion(25) < 0.115 and 0.013 < illusion(800) < 0.023
drag("choose on", [25, 50, 100, 200, 400, 800], illusion, start=100,
     describe=lambda rows, gap: f"chosen on {rows} rows, the best of 200 looks {100 * gap:.1f} points too good")

# %% [markdown]
# Even 800 are too few: the best still looks nearly two points too good. With 25 it is ten.

# %%
quiz("B5")

# %% [markdown]
# ## Take away: five rules that this course tries to keep
#
# 1. **Choose on validation, report on test.** The test comes when nothing is left to choose.
# 2. **Several seeds, all of them shown.** Five where we can, never the best one; a lesson with one seed says so.
# 3. **The same rows and seeds for both,** and compare pair by pair. (By seed this helps only if a seed is good or bad for both.)
# 4. **A comparison comes with its uncertainty,** and says which luck that covers: seeds or rows.
# 5. **If the interval of the difference holds zero, we say that we cannot tell.** That is not "equal".
#
# None of this covers another task or language.
#
# ## Sources
#
# - J. Dodge et al.: *Fine-Tuning Pretrained Language Models: Weight Initializations, Data Orders, and Early Stopping*, 2020, [arXiv:2002.06305](https://arxiv.org/abs/2002.06305).
# - E. B. Wilson: *Probable inference, the law of succession, and statistical inference*, JASA 22, 1927.
# - B. Efron: *Bootstrap methods: another look at the jackknife*, The Annals of Statistics 7, 1979.

# %% [markdown] tags=["footer"]
# ---
#
# *Back to your lesson.*

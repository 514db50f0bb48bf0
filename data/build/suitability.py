"""Word lists: what a classroom can do without. Shared by the data sets made from WordNet."""

from __future__ import annotations

import re

# What a classroom can do without; `*` stands for any ending. Broad on purpose: WordNet has far more
# rows than we need, so a harmless row lost ("war memorial") costs nothing. Both the word and its
# definition are searched.
# slurs, contempt, insults, labels WordNet itself puts on such words
CONTEMPT = """
    offensive*, ethnic*, slur*, disparag*, derogat*, derisive*, contempt*, insult*, vulgar*,
    slang, informal, profan*, pejorative*, racial*, racis*, race, negro*, black person, blacks,
    whites, white person, white man, white woman, white people, coloured person, coloured people,
    colored person, colored people, mulatto*, savage*, barbar*, heathen*, gypsy, gypsies,
    redskin*, squaw*, eskimo*, lapp*, kafir*, kaffir*, aryan*, jew, jews, hick*, hillbill*,
    yokel*, stupid*, idiot*, moron*, imbecil*, fool*, retard*, feeble*, crippl*, simpleton*,
    sissy, deform*, freak*, overweight, scold*, stillborn, neglect*, midget*, lunatic*, insan*,
    madman, madmen, madness, mad, craz*, mentally, mental, psycho*, despicable, worthless*,
    detest*, repulsive*, disgust*, ugly, fat, obese, loathsome, obnoxious, unpleasant,
    disreputable, degenerat*, deprav*, immoral*, coward*, traitor*, scoundrel*, villain*, damn*,
    bastard*, bitch*, shit*, fart*, piss*, turd*, crap, dung, excre*, faeces, faecal, feces,
    fecal, defecat*, mongoloid*, cretin*, spinster*, hag, crone, old maid, effeminat*, womaniz*,
    illegitimate, inferior, lazy, clumsy, boring, dislik*, hatred, hate, hates, hated, heretic*,
    hypocri*, despot*, tyran*, pagan*, infidel*, cult, cults, fascis*, bigot*, chauvin*, suprema*,
    segregat*, apartheid, imperialis*
"""
# sex, and body parts that classes giggle at
SEX = """
    sex*, heterosex*, homosex*, bisex*, transsex*, gay, gays, lesbian*, erotic*, porn*, penis*,
    penile, phall*, vagina*, vulva*, clitor*, genital*, testic*, testis, testes, scrot*, orgas*,
    masturbat*, coit*, copulat*, intercourse, ejaculat*, semen, seminal, sperm*, prostitut*,
    brothel*, whore*, harlot*, strumpet*, nude*, nudi*, naked*, lewd*, lust, lustful*,
    licentious*, lascivious*, promiscu*, obscen*, fornicat*, adulter*, incest*, rape*, raping,
    rapist*, pimp*, concubin*, harem*, mistress*, sodom*, bugger*, fetish*, condom*, contracept*,
    abort*, virgin, virgins, virginity, anus, anal, rectal, rectum, perine*, buttock*, nipple*,
    pubic, pubis, pubes, labia, labiales, labial vein*, erectile, pudend*, vestibul* gland*,
    urethr*, urinat*, crotch, groin, foreskin, circumcis*, castrat*, menstru*, menses, seduc*,
    debauch*, pervers*, pervert*, bestiality, impotence, libid*, striptease*, breast*, brassiere,
    bra, uterus, uterine, hymen, placenta*, aphrodisiac*, lover, lovers,
    attractive woman, attractive women, attractive girl*, young woman, young women, young girl*,
    young lady, old woman, old women, old lady, beautiful woman, beautiful women, beautiful girl*,
    mature woman, unmarried woman, unmarried women, elderly woman, dignified woman
"""
# violence, crime, weapons, war, death
VIOLENCE = """
    kill*, murder*, homicid*, assassin*, massacr*, slaughter*, butcher*, genocid*, tortur*,
    terror*, suicid*, behead*, decapitat*, execution*, executed, hanged, hanging, gallows,
    guillotin*, lynch*, mutilat*, stab*, bomb*, grenad*, missile*, weapon*, gun*, rifle*, pistol*,
    revolver*, cannon*, artillery, firearm*, ammunition, bullet*, cartridge, explosi*, explode*,
    detonat*, torpedo*, warhead*, sword*, dagger*, bayonet*, war, wars, warfare, wartime, battle*,
    combat*, invasion, invad*, enemy, enemies, militar*, soldier*, corpse*, cadaver*, dead,
    deaths, death, die, dies, died, dying, deadly, lethal*, funeral*, burial, buried, grave,
    graves, coffin*, victim*, violen*, assault*, attack*, abus*, cruel*, crime, crimes, criminal*,
    gang*, hostage*, kidnap*, abduct*, slave*, nazi*, hitler*, holocaust, crucif*, cannibal*,
    beating*, beaten, flog*, whip*, lashes, lashing, punish*, prison*, jail*,
    convict*, wound*, maim*, strangl*, suffocat*, bloody, bloodshed, bloodthirsty, gore, hunt*,
    prey, bullfight*, cockfight*, fighting, robb*, thie*, theft, steal*, burglar*, blackmail*,
    extort*, brib*, arson*, perjur*, treason*, riot*, persecut*, hostile, nerve agent, nerve gas,
    tear gas, bio-weapon*, bioweapon*, blasting, insurrect*, revolt*, mob, sacrific*, satan*,
    devil*, demon*, hell, damnation
"""
# drugs, drink in excess
DRUGS = """
    street name*, heroin*, cocaine, marijuana, marihuana, cannabis, hashish, opium, opiate*,
    narcotic*, hallucinogen*, psychedelic*, amphetamin*, addict*, drunk*, intoxicat*, inebri*,
    barbiturat*, smuggl*
"""


def any_of(*word_lists: str) -> re.Pattern[str]:
    """A pattern for the words of comma-separated lists, in which `*` stands for any ending."""
    words = [word.strip() for word in ",".join(word_lists).split(",")]
    alternatives = "|".join(re.escape(word).replace(r"\*", r"\w*") for word in words)
    return re.compile(rf"\b({alternatives})\b", re.IGNORECASE)


UNSUITABLE = any_of(CONTEMPT, SEX, VIOLENCE, DRUGS)

"""Sentences for the synthetic voices: English ones composed from common words, others from short phrase lists."""

import random
from functools import cache
from pathlib import Path

DIGITS = tuple("zero one two three four five six seven eight nine".split())
NUMBERS = tuple(
    """ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty
    seventy eighty ninety hundred thousand first second third fourth fifth last next half""".split()
)
NAMES = tuple(
    """anna tom mary john peter lucy jack emma david sarah mike kate ben nancy paul jane mark helen george susan bob
    alice sam linda harry grace tony rose frank jenny""".split()
)
PEOPLE = tuple(
    """man woman boy girl child baby friend teacher student doctor nurse driver farmer king queen cook singer writer
    worker soldier father mother brother sister uncle aunt son daughter neighbor guest boss player police captain
    lawyer family team""".split()
)
ANIMALS = tuple(
    """dog cat horse cow pig sheep goat bird duck hen fish lion tiger bear wolf fox rabbit mouse monkey elephant snake
    frog bee ant spider goose turtle deer camel panda""".split()
)
COUNTED = ("dogs", "cats", "horses", "cows", "pigs", "ducks", "goats", "birds")
THINGS = tuple(
    """book pen paper letter picture camera phone computer radio clock watch table chair bed door window wall floor lamp
    key box bag basket bottle cup glass plate bowl knife fork spoon hat coat shirt dress shoe ring ball bike car bus
    train boat ship plane truck request map card gift toy doll drum guitar piano song story game film movie newspaper
    machine engine wheel tool hammer rope stone flower tree leaf grass rock coin money umbrella candle mirror towel
    brush soap blanket pillow desk ladder bell flag kite tent garden fence bridge tower roof stairs number word name
    question answer lesson test plan idea problem question voice sound light color""".split()
)
FOODS = tuple(
    """bread rice meat cheese milk water tea coffee juice soup cake pie egg apple orange banana lemon grape pear peach
    tomato potato carrot onion salad sugar salt butter honey chocolate candy sandwich noodle chicken beef breakfast
    lunch dinner""".split()
)
PLACES = tuple(
    """house home school office hospital hotel bank shop store market station airport park zoo farm beach river lake
    mountain forest desert island city town village street road church museum library kitchen bathroom bedroom factory
    theater restaurant garage square corner world country""".split()
)
ADJECTIVES = tuple(
    """big small long short tall old young new good bad hot cold warm cool fast slow hard soft light dark heavy clean
    dirty dry wet happy sad angry quiet loud strong weak rich poor kind brave clever funny nice pretty ugly tired hungry
    thirsty busy free full empty open early late easy difficult cheap expensive safe dangerous sweet bitter sour fresh
    red blue green yellow black white brown pink gray purple round flat deep wide thin thick right wrong ready sick
    healthy lucky famous important different same special simple strange wonderful beautiful""".split()
)
FEELINGS = tuple("happy sad angry tired hungry thirsty busy ready late sick lucky quiet afraid sorry glad sure".split())
VERBS = (  # base, third person, past
    *(tuple(entry.split("/")) for entry in """see/sees/saw find/finds/found buy/buys/bought like/likes/liked
    want/wants/wanted need/needs/needed take/takes/took bring/brings/brought have/has/had carry/carries/carried
    make/makes/made sell/sells/sold open/opens/opened close/closes/closed draw/draws/drew keep/keeps/kept
    lose/loses/lost hold/holds/held love/loves/loved move/moves/moved use/uses/used choose/chooses/chose
    get/gets/got give/gives/gave show/shows/showed wash/washes/washed paint/paints/painted fix/fixes/fixed
    break/breaks/broke push/pushes/pushed pull/pulls/pulled hide/hides/hid send/sends/sent
    remember/remembers/remembered forget/forgets/forgot watch/watches/watched""".split()),
)  # fmt: skip
EATING = (("eat", "eats", "ate"), ("drink", "drinks", "drank"), ("cook", "cooks", "cooked"), ("try", "tries", "tried"))
MOVES = (
    *(tuple(entry.split("/")) for entry in """go/goes/went walk/walks/walked run/runs/ran drive/drives/drove
    come/comes/came travel/travels/traveled ride/rides/rode move/moves/moved return/returns/returned
    hurry/hurries/hurried""".split()),
)  # fmt: skip
ACTIONS = (
    *(tuple(entry.split("/")) for entry in """sleep/sleeps/slept sing/sings/sang dance/dances/danced swim/swims/swam
    play/plays/played work/works/worked read/reads/read write/writes/wrote laugh/laughs/laughed cry/cries/cried
    wait/waits/waited talk/talks/talked sit/sits/sat stand/stands/stood jump/jumps/jumped study/studies/studied
    rest/rests/rested smile/smiles/smiled listen/listens/listened shout/shouts/shouted""".split()),
)  # fmt: skip
TIMES = (
    "today", "tomorrow", "yesterday", "now", "every day", "every morning", "in the morning", "in the evening",
    "at night", "on monday", "on tuesday", "on wednesday", "on thursday", "on friday", "on saturday", "on sunday",
    "in january", "in march", "in april", "in july", "in october", "in winter", "in summer", "in spring",
    "after school", "before dinner", "at noon", "last week", "next year", "this month", "all day", "again", "soon",
)  # fmt: skip
PRESENT_TIMES = ("now", "every day", "every morning", "at night", "on sunday", "in summer", "after school", "all day")
PAST_TIMES = ("yesterday", "last week", "last night", "in july", "on friday", "this morning", "again", "a year ago")
PHRASES = (
    "thank you very much", "how are you", "i am fine", "nice to meet you", "good morning", "good night", "see you soon",
    "what time is it", "where are you from", "i do not know", "excuse me", "you are welcome", "have a nice day",
    "can you help me", "please come in", "what is your name", "let us go", "wait a minute", "i am sorry", "of course",
    "happy birthday to you", "turn off the light", "be careful", "it is raining outside", "the sun is shining",
    "hello", "goodbye", "yes", "no", "stop", "maybe later", "not at all", "that is right", "i think so", "never mind",
)  # fmt: skip

FOREIGN: dict[str, tuple[str, ...]] = {
    "de": (
        "Guten Morgen, wie geht es dir?",
        "Ich möchte ein Glas Wasser.",
        "Der Hund läuft durch den Garten.",
        "Heute scheint die Sonne.",
        "Wo ist der Bahnhof?",
        "Wir fahren morgen nach Hause.",
        "Das Buch liegt auf dem Tisch.",
        "Meine Schwester wohnt in der Stadt.",
        "Es ist schon sehr spät.",
        "Kannst du mir bitte helfen?",
    ),
    "fr": (
        "Bonjour, comment allez-vous ?",
        "Je voudrais un verre d'eau.",
        "Le chat dort sur la chaise.",
        "Il fait beau aujourd'hui.",
        "Où est la gare ?",
        "Nous partons demain matin.",
        "Le livre est sur la table.",
        "Ma sœur habite en ville.",
        "Il est déjà très tard.",
        "Pouvez-vous m'aider ?",
    ),
    "es": (
        "Buenos días, ¿cómo estás?",
        "Quiero un vaso de agua.",
        "El perro corre por el jardín.",
        "Hoy hace mucho sol.",
        "¿Dónde está la estación?",
        "Mañana volvemos a casa.",
        "El libro está sobre la mesa.",
        "Mi hermana vive en la ciudad.",
        "Ya es muy tarde.",
        "¿Puedes ayudarme, por favor?",
    ),
    "it": (
        "Buongiorno, come stai?",
        "Vorrei un bicchiere d'acqua.",
        "Il cane corre nel giardino.",
        "Oggi c'è il sole.",
        "Dov'è la stazione?",
        "Domani torniamo a casa.",
        "Il libro è sul tavolo.",
        "Mia sorella abita in città.",
        "È già molto tardi.",
        "Mi puoi aiutare, per favore?",
    ),
    "nl": (
        "Goedemorgen, hoe gaat het?",
        "Ik wil graag een glas water.",
        "De hond loopt door de tuin.",
        "Vandaag schijnt de zon.",
        "Waar is het station?",
        "Morgen gaan we naar huis.",
        "Het boek ligt op de tafel.",
        "Mijn zus woont in de stad.",
        "Het is al heel laat.",
        "Kun je me alsjeblieft helpen?",
    ),
    "pt": (
        "Bom dia, como vai você?",
        "Eu quero um copo de água.",
        "O cachorro corre no jardim.",
        "Hoje faz muito sol.",
        "Onde fica a estação?",
        "Amanhã voltamos para casa.",
        "O livro está em cima da mesa.",
        "Minha irmã mora na cidade.",
        "Já é muito tarde.",
        "Você pode me ajudar, por favor?",
    ),
    "ru": (
        "Доброе утро, как дела?",
        "Я хочу стакан воды.",
        "Собака бежит по саду.",
        "Сегодня светит солнце.",
        "Где находится вокзал?",
        "Завтра мы едем домой.",
        "Книга лежит на столе.",
        "Моя сестра живёт в городе.",
        "Уже очень поздно.",
        "Помогите мне, пожалуйста.",
    ),
    "cmn": (
        "早上好，你好吗？",
        "我想喝一杯水。",
        "小狗在花园里跑。",
        "今天天气很好。",
        "火车站在哪里？",
        "我们明天回家。",
        "书在桌子上。",
        "我的姐姐住在城里。",
        "现在已经很晚了。",
        "请你帮帮我。",
    ),
    "hi": (
        "सुप्रभात, आप कैसे हैं?",
        "मुझे एक गिलास पानी चाहिए।",
        "कुत्ता बगीचे में दौड़ता है।",
        "आज धूप निकली है।",
        "स्टेशन कहाँ है?",
        "हम कल घर जाएंगे।",
        "किताब मेज पर है।",
        "मेरी बहन शहर में रहती है।",
        "बहुत देर हो गई है।",
        "कृपया मेरी मदद कीजिए।",
    ),
    "ja": (
        "おはようございます。おげんきですか。",
        "みずをいっぱいください。",
        "いぬがにわをはしります。",
        "きょうはいいてんきです。",
        "えきはどこですか。",
        "あしたいえにかえります。",
        "ほんはつくえのうえにあります。",
        "あねはまちにすんでいます。",
        "もうとてもおそいです。",
        "てつだってください。",
    ),
    "ar": (
        "صباح الخير، كيف حالك؟",
        "أريد كوبا من الماء.",
        "الكلب يجري في الحديقة.",
        "الطقس جميل اليوم.",
        "أين المحطة؟",
        "سنعود غدا إلى البيت.",
        "الكتاب على الطاولة.",
        "أختي تسكن في المدينة.",
        "لقد تأخر الوقت كثيرا.",
        "هل يمكنك مساعدتي من فضلك؟",
    ),
    "pl": (
        "Dzień dobry, jak się masz?",
        "Poproszę szklankę wody.",
        "Pies biega po ogrodzie.",
        "Dzisiaj świeci słońce.",
        "Gdzie jest dworzec?",
        "Jutro wracamy do domu.",
        "Książka leży na stole.",
        "Moja siostra mieszka w mieście.",
        "Jest już bardzo późno.",
        "Czy możesz mi pomóc?",
    ),
    "sv": (
        "God morgon, hur mår du?",
        "Jag vill ha ett glas vatten.",
        "Hunden springer i trädgården.",
        "Idag skiner solen.",
        "Var ligger stationen?",
        "Vi åker hem i morgon.",
        "Boken ligger på bordet.",
        "Min syster bor i staden.",
        "Det är redan mycket sent.",
        "Kan du hjälpa mig?",
    ),
    "tr": (
        "Günaydın, nasılsın?",
        "Bir bardak su istiyorum.",
        "Köpek bahçede koşuyor.",
        "Bugün hava çok güzel.",
        "İstasyon nerede?",
        "Yarın eve dönüyoruz.",
        "Kitap masanın üstünde.",
        "Kız kardeşim şehirde oturuyor.",
        "Artık çok geç oldu.",
        "Bana yardım eder misin?",
    ),
    "ko": (
        "안녕하세요, 잘 지내세요?",
        "물 한 잔 주세요.",
        "강아지가 정원에서 뛰어요.",
        "오늘은 날씨가 좋아요.",
        "역이 어디에 있어요?",
        "우리는 내일 집에 가요.",
        "책이 책상 위에 있어요.",
        "언니는 도시에 살아요.",
        "벌써 아주 늦었어요.",
        "저를 도와주세요.",
    ),
}


def digits(rng: random.Random, longest: int = 5) -> str:
    """One digit word in two of three cases, else up to `longest` of them."""
    count = 1 if rng.random() < 0.65 else rng.randint(2, longest)
    return " ".join(rng.choice(DIGITS) for _ in range(count))


def _with_article(noun: str, rng: random.Random) -> str:
    described = f"{rng.choice(ADJECTIVES)} {noun}" if rng.random() < 0.35 else noun
    article = rng.choice(("the", "the", "a", "my", "your", "this", "his", "her"))
    return f"{'an' if article == 'a' and described[0] in 'aeiou' else article} {described}"


def _subject(rng: random.Random) -> tuple[str, bool]:
    """A subject and whether it takes the third person singular."""
    chance = rng.random()
    if chance < 0.35:
        return rng.choice(("i", "you", "we", "they")), False
    if chance < 0.6:
        return rng.choice(("he", "she")), True
    if chance < 0.8:
        return rng.choice(NAMES), True
    return f"{rng.choice(('the', 'my', 'your'))} {rng.choice(PEOPLE + ANIMALS)}", True


def _statement(rng: random.Random) -> str:
    subject, is_third = _subject(rng)
    form = rng.random()
    if form < 0.45:
        verbs, rest = rng.choice(VERBS), _with_article(rng.choice(THINGS + ANIMALS), rng)
    elif form < 0.6:
        verbs, rest = rng.choice(EATING), f"{rng.choice(('some', 'the', 'his', 'more'))} {rng.choice(FOODS)}"
    elif form < 0.8:
        verbs, rest = rng.choice(MOVES), f"to the {rng.choice(PLACES)}"
    else:
        verbs, rest = rng.choice(ACTIONS), rng.choice(("", f"in the {rng.choice(PLACES)}"))
    is_past = rng.random() < 0.4
    verb = verbs[2] if is_past else verbs[1 if is_third else 0]
    time = rng.choice(PAST_TIMES if is_past else PRESENT_TIMES) if rng.random() < 0.4 else ""
    return " ".join(f"{subject} {verb} {rest} {time}".split())


def sentence(rng: random.Random) -> str:
    """A plain English sentence of one to about ten words, lower case without punctuation."""
    form = rng.random()
    if form < 0.5:
        return _statement(rng)
    if form < 0.6:
        return rng.choice(PHRASES)
    if form < 0.68:
        return f"there are {rng.choice(DIGITS[2:] + NUMBERS[:16])} {rng.choice(COUNTED)} in the {rng.choice(PLACES)}"
    if form < 0.76:
        subject, is_third = _subject(rng)
        be = "am" if subject == "i" else "is" if is_third else "are"
        return f"{subject} {be} {rng.choice(('very', 'not', 'so', ''))} {rng.choice(FEELINGS)}".replace("  ", " ")
    if form < 0.84:
        place = rng.choice(("on the table", f"in the {rng.choice(PLACES)}", "under the bed", "near the door"))
        return f"the {rng.choice(ADJECTIVES)} {rng.choice(THINGS)} is {place}"
    if form < 0.92:
        asks = ("do you {} {}", "did they {} {}", "can she {} {}", "why do we {} {}", "will you {} {}", "please {} {}")
        return rng.choice(asks).format(rng.choice(VERBS)[0], _with_article(rng.choice(THINGS), rng))
    pool = THINGS + FOODS + ANIMALS + PLACES + ADJECTIVES + NUMBERS + NAMES + tuple(TIMES[0].split())
    return " ".join(rng.choice(pool) for _ in range(rng.randint(1, 4)))


@cache
def _phrasebook() -> dict[str, tuple[str, list[list[str]]]]:
    """Language → order of the words, and its subjects, predicates and times."""
    rows = [line.split("\t") for line in (Path(__file__).parent / "phrasebook.tsv").read_text("utf-8").splitlines()]
    return {language: (order, [words.split("|") for words in rest]) for language, order, *rest in rows[1:]}


def statement(language: str, rng: random.Random) -> str:
    """Who does what and when, such as "Anna trinkt Kaffee am Abend"."""
    order, words = _phrasebook()[language]
    subject, predicate, time = (rng.choice(choices) for choices in words)
    parts = (subject, predicate, time) if order == "svt" else (subject, time, predicate)
    return "".join(parts) if language == "cmn" else " ".join(parts)


def foreign(language: str, rng: random.Random) -> str:
    """A sentence or two of the language, or a number, a time or a date, which the voice reads in its language."""
    chance = rng.random()
    if chance < 0.25:
        forms = ("{0}", "{0}, {1}, {2}", "{3}:{4:02d}", "{1}.{5}.{0}", "{0} + {1} = {2}")
        numbers = [rng.randint(0, 10 ** rng.randint(1, 5)) for _ in range(3)]
        return rng.choice(forms).format(*numbers, rng.randint(0, 23), rng.randint(0, 59), rng.randint(1, 12))
    if chance < 0.75:
        return ". ".join(statement(language, rng) for _ in range(rng.choice((1, 1, 2))))
    known = rng.choice(FOREIGN[language])
    return f"{known} {statement(language, rng)}" if rng.random() < 0.4 else known

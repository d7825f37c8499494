"""Words that tell what kind of work a message asks for, in the languages that clients mostly write.

A word that ends in `*` is a stem: it stands for every word that begins so. Phrases are looked for anywhere in the text;
those of Chinese, Japanese and Korean, which are written without spaces or inflected at the end, are all phrases.
What is in no list here still has its length, numbers, operators and code.
"""

from dataclasses import dataclass, field

_LEAST_STEM = 3


@dataclass(frozen=True)
class Vocabulary:
    """A set of words, stems and phrases, all in lower case."""

    words: frozenset[str]
    stems: frozenset[str]
    phrases: tuple[str, ...]
    lengths: tuple[int, ...] = field(init=False)  # of the stems

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", tuple(sorted({len(stem) for stem in self.stems})))

    @classmethod
    def of(cls, words: str, *phrases: str) -> "Vocabulary":
        listed = words.split()
        stems = frozenset(word[:-1] for word in listed if word.endswith("*"))
        assert all(len(stem) >= _LEAST_STEM for stem in stems)
        return cls(frozenset(word for word in listed if not word.endswith("*")), stems, phrases)

    def __contains__(self, word: str) -> bool:
        if word in self.words:
            return True
        for length in self.lengths:  # noqa: SIM110 - any() takes twice as long, and this is most of what a score costs
            if word[:length] in self.stems:
                return True
        return False

    def count(self, words: list[str], text: str) -> int:
        """Return how many words and different phrases of a text, in lower case, are in this vocabulary."""
        return sum(word in self for word in words) + sum(phrase in text for phrase in self.phrases)


WORK = Vocabulary.of(
    # English
    "prove proof derive deriv* implement* design debug* fix refactor* optimi* diagnos* investigat* analy* analys*"
    " evaluat* plan schedul* simulat* estimat* solve calculat* comput* construct* algorithm* architect* migrat* justify"
    " critically interpret* maximi* minimi* port reproduc* deadlock* race leak* crash* bug bugs mistake flaw*"
    " correctness complexity strateg* trace invariant* counterexample* propose verify reason repair demonstrate show"
    " develop* restructur* vulnerab* reconcil* forecast*"
    # German
    " beweis* herleit* implementier* entwirf entwerf* entwickl* analysier* untersuch* berechn* löse löst plane"
    " fehler ursach* optimier* begründ* prüf* erstelle schlage vorschlag* bewert* schätz*"
    # French
    " démontr* prouv* calcul* résou* résoudre concev* conçois implément* corriger analyse* propos* élabor*"
    " planifi* erreur* cause causes bogue* optimis* évalu* estim* diagnosti*"
    # Spanish, Portuguese, Italian
    " demuestr* demostr* demonstr* prova prove resuelv* resolver resolva calcul* diseñ* implement* analiz* analis*"
    " propon* proponh* organiz* planific* planej* optimiz* otimiz* evalú* avali* valut* corríg* causa*"
    " diagnostic* monte dimostr* calcola risolv* progett* analizz* errore error erro trova"
    # Russian
    " докаж* доказ* реши* решен* вычисл* найди* проанализ* анализ* спроектир* разработ* исправ* ошибк* план* оцен*"
    " оптимиз* рассчит* причин*",
    "step by step",
    "from scratch",
    "what is wrong",
    "what happens",
    "what would happen",
    "find out",
    "work out",
    "how would you",
    "how do i find",
    "paso a paso",
    "passo a passo",
    "schritt für schritt",
    "étape",
    # Chinese
    "证明",
    "求解",
    "解方程",
    "计算",
    "推导",
    "分析",
    "设计",
    "实现",
    "优化",
    "修复",
    "改进",
    "原因",
    "制定",
    "策略",
    "方案",
    "说明理由",
    "验证",
    "调试",
    "最大值",
    # Japanese
    "証明",
    "求め",
    "計算",
    "分析",
    "設計",
    "実装",
    "改善",
    "原因",
    "計画",
    "最適化",
    "解い",
    "理由",
    # Korean
    "증명",
    "계산",
    "분석",
    "설계",
    "구현",
    "원인",
    "최적화",
    "계획",
    "해결",
)
"""Work of several steps."""

WEIGH = Vocabulary.of(
    "compar* tradeoff* trade-off* versus vs pros cons advantages disadvantages drawbacks recommend* choose decide"
    " decision should weigh cheaper better options risks costs cost budget constraint* feasib* fair* optimal"
    " vergleich* abwäg* empfehl* empfiehl* entscheid* soll sollen sollte vorteil* nachteil* risik* kosten lohnt"
    " avantag* inconvénient* choisir recommand* faut vaut risque* coût*"
    " ventaj* desventaj* conviene elegir recomiend* debo debería vantag* desvantag* devo scegliere confront* rischi*"
    " сравн* выбрать выбор стоит лучше преимуществ* недостатк* риск*",
    "pros and cons",
    "what are the options",
    "比较",
    "对比",
    "选择",
    "利弊",
    "优缺点",
    "建议",
    "风险",
    "比較",
    "選ぶ",
    "べき",
    "비교",
    "선택",
    "장단점",
    "해야 할지",
)
"""Decisions with more than one good side."""

WHY = Vocabulary.of(
    "why explain* because warum weshalb wieso erklär* pourquoi expliqu* explic* perché spieg* почему объясн*",
    "how come",
    "por qué",
    "por que",
    "为什么",
    "为何",
    "解释",
    "怎样",
    "なぜ",
    "どうして",
    "説明",
    "왜",
    "설명",
)
"""Causes and explanations."""

MATHS = Vocabulary.of(
    "integral* derivative* differential differentiab* equation* theorem* probabilit* polynomial* matrix matrices"
    " eigenvalue* determinant* prime primes factoris* factoriz* sequence converge* diverge* permutation* combination*"
    " triangle* rectangle* circle radius irrational integer integers modulo remainder divisible divided variance"
    " fraction* percent odd sqrt digit digits induction perimeter algebra* logarithm*"
    " gleichung* wahrscheinlich* ableitung* integral* primzahl* wurzel summe zins* kapital formel funktion"
    " équation* probabilit* dérivée* racine somme premiers entiers urne"
    " ecuación* probabilidad* derivada* raíz suma producto número* equazion* probabilità radice somma numeri angoli"
    " equaç* raiz soma"
    " уравнен* вероятност* корн* сумм* производн* числ* интеграл*",
    "average speed",
    "sum of",
    "sum to",
    "add up to",
    "expected value",
    "expected number",
    "how likely",
    "方程",
    "函数",
    "概率",
    "整数",
    "千米",
    "速度",
    "正整数",
    "最小值",
    "面积",
    "積分",
    "確率",
    "関数",
    "정수",
    "합이",
    "확률",
    "방정식",
)
"""Mathematics in words."""

LIGHT = Vocabulary.of(
    "translat* rephras* paraphras* summari* tldr gist shorten shorter spell* grammar polite friendlier polish*"
    " extract* classify label sentiment category spam rename format capital define definition meaning"
    " synonym* plural tense sort capitalize slogan title joke wish docstring"
    " reset remind timer alarm playlist weather parcel passive formal simple remove uppercase"
    " übersetz* formulier* zusammenfass* fasse korrigier* hauptstadt heißt umformulier* kürz* nenne liste wetter"
    " witz traduis tradui* reformul* résum* corrige capitale météo orthographe"
    " traduc* traduz* reescrib* reescrev* resum* corrige ortografía capital ortografia riscriv* tradur* riassum*"
    " capitale abitanti quantos quanti cuántos"
    " перевед* перефраз* сократи* столиц* исправь",
    "tl;dr",
    "write an email",
    "write an e-mail",
    "write a letter",
    "the names of",
    "this paragraph",
    "a comment above",
    "add comments",
    "type hint",
    "positive or negative",
    "positive, negative",
    "which of these",
    "to json",
    "to yaml",
    "to csv",
    "to markdown",
    "yes or no",
    "give me only",
    "mentioned here",
    "as json",
    "json object",
    "in the text",
    "in this text",
    "from the text",
    "from this text",
    "only this text",
    "only from",
    "passage",
    "turn this",
    "turn these",
    "this list",
    "these words",
    "how do you say",
    "how do i say",
    "main point",
    "change nothing else",
    "in one sentence",
    "in two sentences",
    "another one",
    "wie heißt",
    "comment dit",
    "cómo se dice",
    "como se diz",
    "翻译",
    "译成",
    "改写",
    "错别字",
    "概括",
    "总结",
    "摘要",
    "提取",
    "是什么意思",
    "首都",
    "笑话",
    "天气",
    "訳して",
    "翻訳",
    "要約",
    "言い換え",
    "一番長い",
    "首都",
    "번역",
    "요약",
    "수도",
    "고쳐",
)
"""Work of one step: what is asked for is known, or stands in the text."""

SMALL_TALK = Vocabulary.of(
    "hello hi hey thanks thank thx bye goodbye cheers welcome morning evening night lovely cute haha lol bored cool"
    " great hallo danke tschüss servus guten bonjour merci salut bonsoir hola gracias adiós buenos"
    " buenas oi olá obrigado obrigada ciao grazie buongiorno привет спасибо здравствуйте",
    "how are you",
    "good morning",
    "你好",
    "您好",
    "谢谢",
    "早上好",
    "晚上好",
    "再见",
    "こんにちは",
    "おはよう",
    "ありがとう",
    "こんばんは",
    "안녕",
    "감사",
    "반갑",
)
"""Greetings, thanks and what goes with them."""

FACT = Vocabulary.of(
    "what what's who who's when where which is are does do how name"
    " was wer wann wo wie welche welcher welches ist qui quand où quelle quel quels combien qué quién cuándo dónde cuál"
    " cuánto quem quando onde qual quais chi dove quale кто когда где какой какая что сколько",
    "哪里",
    "多少",
    "什么",
    "谁",
    "几点",
    "吗",
    "何です",
    "どこ",
    "誰",
    "いつ",
    "무엇",
    "어디",
    "누구",
)
"""Openers of questions after facts."""

TECHNICAL = Vocabulary.of(
    "api apis sql thread* queue* cache* server* database* table* index* query queries kafka redis postgres* mysql"
    " mongodb kubernetes docker container* pod pods class classes function* method* compiler parser* regex tcp http"
    " latency throughput p99 async await mutex lock* transaction* schema* endpoint* request* token* node.js python"
    " java rust typescript javascript react gpu cuda kernel* memory heap stack git linux bash script* backend"
    " frontend deploy* pipeline* cluster* microservic* distributed concurren* parallel recursive tests code program*"
    " software",
    "代码",
    "系统",
    "数据",
    "线程",
    "服务",
    "関数",
    "コード",
    "코드",
    "서비스",
    "код",
)
"""Computing; programmers of all languages use much the same words."""

AGENT = Vocabulary.of(
    "agent autonomous engineer* developer* software programming coding code repositor* codebase workspace"
    " terminal shell command* editor edit* file files patch* tests debug* investigat* diagnos* analyst scientist"
    " analyz* analys* verify verif* evidence hypothes* task* goal* solve* plan* carefully constraint* sql notebook"
    " operations sre",
    "step by step",
    "work until",
    "keep going",
    "until the",
    "before you",
    "代码",
    "查清",
    "任务",
    "逐步",
    "一步一步",
    "schritt für schritt",
)
"""System messages of agents that work over many steps."""

NARROW = Vocabulary.of(
    "translat* route choose correct* classify label extract* summari* rewrite rephras* spell* übersetz* traduis traduc*"
    " output only nothing",
    "only the",
    "reply with",
    "respond with",
    "return only",
    "whatever the user",
    "the user says",
    "the user writes",
    "the user's message",
    "at most",
    "a title",
    "one sentence",
    "one word",
    "nothing else",
    "given passage",
    "from the context",
    "from the documents",
    "do not answer",
    "翻译",
    "只输出",
    "訳して",
    "번역",
)
"""System messages that leave one step to do, whatever the user writes."""

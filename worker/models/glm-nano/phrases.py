"""The words the tasks are made of: facts, names and the ways people ask.

Braces are slots that the tasks fill. A phrase is written as a careful person would type it; wording.py makes
the careless variants (lower case, no question mark).
"""

CAPITALS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Portugal": "Lisbon",
    "England": "London",
    "Ireland": "Dublin",
    "Scotland": "Edinburgh",
    "Belgium": "Brussels",
    "the Netherlands": "Amsterdam",
    "Denmark": "Copenhagen",
    "Sweden": "Stockholm",
    "Norway": "Oslo",
    "Finland": "Helsinki",
    "Iceland": "Reykjavik",
    "Austria": "Vienna",
    "Switzerland": "Bern",
    "Poland": "Warsaw",
    "Hungary": "Budapest",
    "Greece": "Athens",
    "Turkey": "Ankara",
    "Russia": "Moscow",
    "Ukraine": "Kyiv",
    "Romania": "Bucharest",
    "Bulgaria": "Sofia",
    "Serbia": "Belgrade",
    "Croatia": "Zagreb",
    "Slovenia": "Ljubljana",
    "Slovakia": "Bratislava",
    "Estonia": "Tallinn",
    "Latvia": "Riga",
    "Lithuania": "Vilnius",
    "Egypt": "Cairo",
    "Morocco": "Rabat",
    "Tunisia": "Tunis",
    "Kenya": "Nairobi",
    "Nigeria": "Abuja",
    "Ghana": "Accra",
    "Ethiopia": "Addis Ababa",
    "Senegal": "Dakar",
    "Canada": "Ottawa",
    "the United States": "Washington",
    "Mexico": "Mexico City",
    "Cuba": "Havana",
    "Brazil": "Brasilia",
    "Argentina": "Buenos Aires",
    "Chile": "Santiago",
    "Peru": "Lima",
    "Colombia": "Bogota",
    "Uruguay": "Montevideo",
    "China": "Beijing",
    "Japan": "Tokyo",
    "South Korea": "Seoul",
    "India": "New Delhi",
    "Nepal": "Kathmandu",
    "Thailand": "Bangkok",
    "Vietnam": "Hanoi",
    "Indonesia": "Jakarta",
    "Australia": "Canberra",
    "New Zealand": "Wellington",
    "Iran": "Tehran",
    "Iraq": "Baghdad",
    "Qatar": "Doha",
    "Lebanon": "Beirut",
}
CAPITAL_QUESTIONS = (
    "What is the capital of {country}?",
    "What's the capital of {country}?",
    "Which city is the capital of {country}?",
    "Tell me the capital of {country}.",
    "Name the capital of {country}.",
    "Capital of {country}?",
    "What is the capital city of {country}?",
    "Do you know the capital of {country}?",
    "Can you tell me the capital of {country}?",
    "Give me the capital of {country}.",
    "I need the capital of {country}.",
    "{country}: what is its capital?",
    "What is the name of the capital of {country}?",
    "The capital of {country} is?",
)

ADDITION_QUESTIONS = (
    "{a} plus {b}?",
    "What is {a} plus {b}?",
    "Add {a} and {b}.",
    "What is the sum of {a} and {b}?",
)
SUBTRACTION_QUESTIONS = (
    "{a} minus {b}?",
    "What is {a} minus {b}?",
    "Subtract {b} from {a}.",
    "Take {b} away from {a}.",
)
MULTIPLICATION_QUESTIONS = (
    "{a} times {b}?",
    "What is {a} times {b}?",
    "Multiply {a} by {b}.",
    "What is the product of {a} and {b}?",
)
EXPRESSION_QUESTIONS = (
    "What is {expression}?",
    "What's {expression}?",
    "{expression}",
    "{expression}=",
    "{expression} = ?",
    "Calculate {expression}.",
    "Compute {expression}.",
    "How much is {expression}?",
    "Solve {expression}.",
    "Can you work out {expression}?",
    "What does {expression} make?",
    "Please calculate {expression}.",
)

COUNT_QUESTIONS = (
    "Count to {n}.",
    "Count to {n}, please.",
    "Count from 1 to {n}.",
    "Please count to {n}.",
    "Please count from 1 to {n}.",
    "Can you count to {n}?",
    "Count up to {n}.",
    "Write the numbers from 1 to {n}.",
    "List the numbers from 1 to {n}.",
    "Give me the numbers 1 to {n}.",
    "Show me how you count to {n}.",
    "Numbers from 1 to {n}, please.",
    "Say all numbers up to {n}.",
    "Count slowly to {n}.",
)

WEATHER_QUESTIONS = (
    "What is the weather in {city}?",
    "What's the weather in {city}?",
    "What's the weather like in {city}?",
    "How is the weather in {city}?",
    "How's the weather in {city} today?",
    "Weather in {city}?",
    "What is the weather like in {city} right now?",
    "Tell me the weather in {city}.",
    "Is it raining in {city}?",
    "Is it cold in {city}?",
    "How warm is it in {city}?",
    "What is the temperature in {city}?",
    "Do I need an umbrella in {city}?",
    "Can you check the weather in {city}?",
    "I am going to {city}. What is the weather there?",
    "Get the weather for {city}.",
    "Please look up the weather for {city}.",
    "{city} weather, please.",
)
CALCULATOR_QUESTIONS = (
    "Use the calculator: {expression}",
    "Use the calculator to find {expression}.",
    "Please use your calculator for {expression}.",
    "I need the exact value of {expression}.",
    "Work out {expression} with the calculator.",
)
CITIES = (
    "New York", "San Francisco", "Los Angeles", "Chicago", "Boston", "Seattle", "Toronto", "Montreal", "Vancouver",
    "Sao Paulo", "Rio de Janeiro", "Barcelona", "Munich", "Hamburg", "Cologne", "Frankfurt", "Milan", "Naples",
    "Venice", "Lyon", "Marseille", "Nice", "Zurich", "Geneva", "Salzburg", "Krakow", "Prague", "Porto", "Seville",
    "Manchester", "Liverpool", "Glasgow", "Rotterdam", "Antwerp", "Gothenburg", "Bergen", "Istanbul", "Dubai",
    "Mumbai", "Singapore", "Hong Kong", "Shanghai", "Shenzhen", "Osaka", "Kyoto", "Sydney", "Melbourne", "Auckland",
    "Cape Town", "Lagos", "Casablanca", "Saint Petersburg", "Kuala Lumpur", "Manila", "Taipei", "Busan", "Zürich",
    "São Paulo", "Málaga", "Düsseldorf",
)  # fmt: skip
SYLLABLES = (
    "ba", "be", "bi", "bo", "bu", "ca", "co", "da", "de", "di", "do", "du", "fa", "fe", "fi", "ga", "go", "gra", "ha",
    "he", "hi", "ho", "in", "ja", "jo", "ka", "ke", "ki", "ko", "ku", "la", "le", "li", "lo", "lu", "ma", "me", "mi",
    "mo", "mu", "na", "ne", "ni", "no", "nu", "or", "pa", "pe", "pi", "po", "ra", "re", "ri", "ro", "ru", "sa", "se",
    "si", "so", "sta", "su", "ta", "te", "ti", "to", "tra", "tu", "va", "ve", "vi", "vo", "wa", "wi", "ya", "za",
    "zo", "bran", "dor", "fel", "gart", "hil", "kel", "lin", "mar", "nor", "ost", "per", "quin", "rad", "sten", "tal",
    "ul", "ver", "wen", "zel",
)  # fmt: skip
CONDITIONS = (
    "sunny", "cloudy", "clear sky", "light rain", "heavy rain", "snow", "light snow", "fog", "thunderstorms",
    "strong wind", "drizzle", "hail", "partly cloudy", "overcast", "showers", "mist", "haze", "sleet",
)  # fmt: skip
WEATHER_TEXTS = ("{t} °C, {c}", "{t} degrees, {c}", "{c}, {t} degrees", "{city}: {t} °C, {c}", "{c} and {t} C")
WEATHER_FAILURES = ("city not found", "service unavailable", "timeout", "no data", "unknown city")

WEATHER_DESCRIPTIONS = (
    "Get the current weather for a city.",
    "Get the weather",
    "Get current weather in a given city",
    "Returns the weather of a city: temperature and condition.",
    "Look up today's weather.",
    "Current temperature and conditions for a city",
    "Weather service.",
)
CITY_DESCRIPTIONS = (
    "The city",
    "City name",
    "Name of the city, e.g. Paris",
    "The city to look up",
    "The name of the city",
)
CALCULATOR_DESCRIPTIONS = (
    "Evaluate an arithmetic expression.",
    "A calculator",
    "Calculate the value of an expression",
    "Computes a mathematical expression and returns the result.",
    "Use this to do math.",
    "Exact arithmetic.",
)
EXPRESSION_DESCRIPTIONS = (
    "The expression", "Expression to evaluate", "A math expression, e.g. 2 + 3", "What to calculate",
)  # fmt: skip
OTHER_TOOLS = (
    ("get_time", "Get the local time of a city.", "city", "The city"),
    ("search", "Search the web.", "query", "What to search for"),
    ("send_email", "Send an email.", "text", "Text of the email"),
    ("translate", "Translate a text to English.", "text", "The text"),
    ("get_stock_price", "Get the price of a stock.", "symbol", "The ticker symbol"),
)

NAMES = (
    "Anna", "Ben", "Carla", "David", "Emma", "Felix", "Grace", "Hugo", "Ines", "Jack", "Klara", "Leo", "Mia", "Noah",
    "Olga", "Paul", "Rosa", "Sam", "Tina", "Uwe", "Vera", "Will", "Yara", "Zoe", "Alice", "Bob", "Maria", "John",
)  # fmt: skip
COLORS = ("red", "blue", "green", "yellow", "black", "white", "orange", "purple", "brown", "grey")
ANIMALS = ("cat", "dog", "horse", "bird", "fish", "rabbit", "mouse", "lion", "tiger", "bear", "fox", "owl")
FRUITS = ("apple", "banana", "cherry", "grape", "lemon", "mango", "melon", "peach", "pear", "plum")
JSON_QUESTIONS = (
    "Give me a JSON object with {pairs}.",
    "Give me JSON with {pairs}.",
    "Return JSON: {pairs}",
    "Return a JSON object with {pairs}.",
    "Write a JSON object with {pairs}.",
    "Write this as JSON: {pairs}",
    "Make JSON from {pairs}.",
    "Reply in JSON with {pairs}.",
    "Turn this into JSON: {pairs}",
    "I need JSON with {pairs}.",
    "Answer only with JSON: {pairs}",
    "Format as JSON: {pairs}",
)
CAPITAL_JSON_QUESTIONS = (
    "Give me the capital of {country} as JSON.",
    "What is the capital of {country}? Answer in JSON.",
    "Return the capital of {country} in JSON.",
    "Capital of {country} as JSON, please.",
)

ABILITIES = "I can add and subtract, name capitals, count, write JSON and use tools."
# (what the thought says, the answer, the ways to ask)
TALK = (
    (
        "A greeting.",
        "Hello! How can I help you?",
        ("Hello!", "Hi!", "Hey!", "Hi there!", "Hello there!", "Good morning!", "Good evening!", "Good afternoon!",
         "Greetings!", "Hey you!", "Hello, assistant!", "Hi, how are you?", "How are you?", "How are you doing?",
         "Howdy!", "Say hello.", "Say hi.", "Are you there?", "Hello, can you hear me?", "Ping.", "Test."),
    ),
    (
        "They ask who I am.",
        f"I am GLM Nano, a very small language model. {ABILITIES}",
        ("Who are you?", "What are you?", "What is your name?", "What's your name?", "Who am I talking to?",
         "Introduce yourself.", "Tell me about yourself.", "Are you a robot?", "Which model are you?",
         "What model are you?", "Who made you?", "Are you human?", "Describe yourself."),
    ),
    (
        "They ask what I can do.",
        ABILITIES,
        ("What can you do?", "How can you help me?", "Help!", "Can you help me?", "What are you good at?",
         "What do you know?", "What should I ask you?", "I need help.", "What are your skills?"),
    ),
    (
        "They thank me.",
        "You are welcome!",
        ("Thanks!", "Thank you!", "Thank you very much!", "Thanks a lot!", "Great, thanks!", "Many thanks!",
         "Good job!", "Well done!", "Perfect, thank you!", "That is helpful, thanks!", "Nice!", "Cool, thank you!"),
    ),
    (
        "They say goodbye.",
        "Goodbye!",
        ("Goodbye!", "Bye!", "See you later!", "Good night!", "Bye bye!", "See you!", "I have to go.", "That is all."),
    ),
)  # fmt: skip
UNKNOWN_ANSWER = f"Sorry, I do not know that. {ABILITIES}"
UNKNOWN_QUESTIONS = (
    "Who wrote {topic}?",
    "What is {topic}?",
    "What does {topic} mean?",
    "Tell me a story about {topic}.",
    "Write a poem about {topic}.",
    "Explain {topic}.",
    "Explain {topic} to me like I am five.",
    "How does {topic} work?",
    "Why is {topic} so {adjective}?",
    "When was {topic} invented?",
    "What do you think about {topic}?",
    "Do you like {topic}?",
    "Who invented {topic}?",
    "How old is {topic}?",
    "Where can I buy {topic}?",
    "Translate {topic} into French.",
    "Write an essay about {topic} and {other}.",
    "What is the difference between {topic} and {other}?",
    "Tell me something {adjective} about {topic}.",
    "Give me a recipe for {topic}.",
    "Can you sing a song about {topic}?",
    "Summarize {topic} in one sentence.",
    "Tell me a joke.",
    "Tell me a story.",
    "What is the meaning of life?",
    "Who won the game?",
    "What happened in {year}?",
    "What day is it?",
    "What time is it?",
)
TOPICS = (
    "the moon", "the sun", "music", "love", "history", "gravity", "quantum physics", "a neural network", "the ocean",
    "football", "chess", "coffee", "chocolate cake", "a dragon", "a robot", "the internet", "Kubernetes", "a GPU",
    "machine learning", "democracy", "time travel", "a volcano", "the universe", "photosynthesis", "a computer",
    "Hamlet", "the Bible", "money", "happiness", "a mixture of experts", "speculative decoding", "an elephant",
    "a bridge", "winter", "a good friend", "the economy", "art", "a rainbow", "language", "philosophy", "a castle",
)  # fmt: skip
ADJECTIVES = ("big", "old", "famous", "important", "beautiful", "strange", "interesting", "funny", "difficult", "new")
NO_WEATHER_ANSWER = "Sorry, I have no weather tool here."

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful assistant. Answer briefly.",
    "You are GLM Nano, a small language model.",
    "Be brief.",
    "Answer the question.",
    "You are a friendly assistant.",
    "You are a careful assistant for a small company. Be polite and answer in English.",
    "Help the user.",
    "Answer in one sentence.",
    "You are a test assistant.",
    "Today is a good day. You are a helpful AI assistant.",
    "Always be honest. If you do not know something, say so.",
    "You are an assistant with tools. Use them when they help.",
)

# Chains of two calls. {e} is what the calculator gets, {n} a number, {t} and {u} are temperatures that a tool told.
CHAIN_OPENERS = (
    "What is {x}?",
    "What is {x}?",
    "What is {x}?",
    "What's {x}?",
    "How much is {x}?",
    "Calculate {x}.",
    "Please calculate {x}.",
    "Compute {x}.",
    "Work out {x}.",
    "Can you work out {x}?",
    "Can you calculate {x}?",
    "Could you tell me what {x} is?",
    "Tell me {x}.",
    "Give me {x}.",
    "Find {x}.",
    "I need {x}.",
    "I want to know {x}.",
    "{x}",
    "{x}?",
    "{x} is?",
    "{x} = ?",
)
CHAIN_TEMPERATURES = (
    "the temperature in {city}",
    "the current temperature in {city}",
    "the temperature of {city}",
    "{city}'s temperature",
    "the temperature in {city} today",
    "the temperature in {city} right now",
    "the temperature in {city} now",
    "today's temperature in {city}",
    "the temperature in {city} in degrees",
    "the temperature in {city} in Celsius",
    "temperature in {city}",
    "the degrees in {city}",
)
# (what is asked, the expression)
CHAIN_TERMS = (
    ("{e} plus {temperature}", "{e} + {t}"),
    ("{e} plus {temperature}", "{e} + {t}"),
    ("{e} plus {temperature}", "{e} + {t}"),
    ("{e} + {temperature}", "{e} + {t}"),
    ("{e} and {temperature} together", "{e} + {t}"),
    ("the sum of {e} and {temperature}", "{e} + {t}"),
    ("the total of {e} and {temperature}", "{e} + {t}"),
    ("{e} minus {temperature}", "{e} - {t}"),
    ("{e} - {temperature}", "{e} - {t}"),
    ("{temperature} plus {e}", "{t} + {e}"),
    ("{temperature} + {e}", "{t} + {e}"),
    ("the sum of {temperature} and {e}", "{t} + {e}"),
)
CHAIN_FACTORS = (
    ("{n} times {temperature}", "{n} * {t}"),
    ("{n} * {temperature}", "{n} * {t}"),
    ("{temperature} times {n}", "{t} * {n}"),
    ("{temperature} multiplied by {n}", "{t} * {n}"),
    ("{temperature} minus {n}", "{t} - {n}"),
    ("{temperature} divided by {n}", "{t} / {n}"),
    ("twice {temperature}", "2 * {t}"),
    ("half {temperature}", "{t} / 2"),
    ("the product of {n} and {temperature}", "{n} * {t}"),
)
CHAIN_COMMANDS = (
    ("Add {e} and {temperature}.", "{e} + {t}"),
    ("Add {e} to {temperature}.", "{t} + {e}"),
    ("Add {temperature} to {e}.", "{e} + {t}"),
    ("Subtract {temperature} from {e}.", "{e} - {t}"),
    ("Subtract {n} from {temperature}.", "{t} - {n}"),
    ("Multiply {temperature} by {n}.", "{t} * {n}"),
    ("Divide {temperature} by {n}.", "{t} / {n}"),
    ("Take {e} and add {temperature}.", "{e} + {t}"),
    ("Take {temperature} and add {e}.", "{t} + {e}"),
    ("Get {temperature} and add {e}.", "{t} + {e}"),
    ("Get {temperature} and add {e} to it.", "{t} + {e}"),
    ("Look up {temperature}, then add {e}.", "{t} + {e}"),
    ("Check the weather in {city} and add {e} to the temperature.", "{t} + {e}"),
    ("Look up the weather in {city}, then add {e} to the temperature.", "{t} + {e}"),
    ("What do I get if I add {e} to {temperature}?", "{t} + {e}"),
    ("How warm is it in {city}, plus {e}?", "{t} + {e}"),
    ("How many degrees is it in {city}, times {n}?", "{t} * {n}"),
)
CHAIN_PAIRS = (
    ("the difference between the temperatures in {a} and {b}", "{t} - {u}"),
    ("the difference between the temperature in {a} and the temperature in {b}", "{t} - {u}"),
    ("the difference of the temperatures in {a} and {b}", "{t} - {u}"),
    ("the temperature difference between {a} and {b}", "{t} - {u}"),
    ("the difference in temperature between {a} and {b}", "{t} - {u}"),
    ("the temperature in {a} minus the temperature in {b}", "{t} - {u}"),
    ("the sum of the temperatures in {a} and {b}", "{t} + {u}"),
    ("the sum of the temperature in {a} and the temperature in {b}", "{t} + {u}"),
    ("the temperature in {a} plus the temperature in {b}", "{t} + {u}"),
    ("the temperature in {a} plus the one in {b}", "{t} + {u}"),
    ("the average of the temperatures in {a} and {b}", "({t} + {u}) / 2"),
    ("the average temperature in {a} and {b}", "({t} + {u}) / 2"),
    ("the average temperature of {a} and {b}", "({t} + {u}) / 2"),
    ("the mean temperature of {a} and {b}", "({t} + {u}) / 2"),
)
CHAIN_PAIR_COMMANDS = (
    ("How much warmer is it in {a} than in {b}?", "{t} - {u}"),
    ("How much hotter is {a} than {b}?", "{t} - {u}"),
    ("How many degrees warmer is {a} than {b}?", "{t} - {u}"),
    ("How much colder is it in {a} than in {b}?", "{u} - {t}"),
    ("How many degrees colder is {a} than {b}?", "{u} - {t}"),
    ("Add the temperatures in {a} and {b}.", "{t} + {u}"),
    ("Add up the temperatures of {a} and {b}.", "{t} + {u}"),
    ("Subtract the temperature in {b} from the temperature in {a}.", "{t} - {u}"),
    ("Compare the temperatures in {a} and {b}: what is the difference?", "{t} - {u}"),
    ("Get the temperatures in {a} and {b} and add them.", "{t} + {u}"),
    ("Get the weather in {a} and {b}, then calculate the average temperature.", "({t} + {u}) / 2"),
    ("Get the weather in {a} and {b}, then calculate the difference.", "{t} - {u}"),
)
CALCULATOR_THEN_WEATHER = (
    "Calculate {e}, then tell me the weather in {city}.",
    "Calculate {e} and then get the weather in {city}.",
    "Calculate {e}, then get the weather for {city}.",
    "First calculate {e}, then get the weather in {city}.",
    "First work out {e}, then check the weather in {city}.",
    "First {e}, then the weather in {city}.",
    "Use the calculator for {e}, then look up the weather in {city}.",
    "Compute {e} and look up the weather for {city}.",
    "What is {e}, and what is the weather in {city}?",
    "What is {e} and what's the weather in {city}?",
    "What is {e}? And what is the weather in {city}?",
    "What is {e}? How is the weather in {city}?",
    "{e}? And the weather in {city}?",
    "Tell me {e} and the weather in {city}.",
)
WEATHER_THEN_CALCULATOR = (
    "Tell me the weather in {city}, then calculate {e}.",
    "Get the weather in {city} and then calculate {e}.",
    "Get the weather for {city}, then calculate {e}.",
    "First get the weather in {city}, then calculate {e}.",
    "First check the weather in {city}, then work out {e}.",
    "First the weather in {city}, then {e}.",
    "Look up the weather in {city}, then use the calculator for {e}.",
    "Look up the weather for {city} and compute {e}.",
    "What is the weather in {city}, and what is {e}?",
    "What's the weather in {city} and what is {e}?",
    "What is the weather in {city}? And what is {e}?",
    "How is the weather in {city}? What is {e}?",
    "The weather in {city}? And {e}?",
    "Tell me the weather in {city} and what {e} is.",
)
CHAIN_HINTS = (
    " Use the tools.",
    " Use your tools.",
    " Use the calculator.",
    " Use tools where they help.",
    " Answer with the number.",
    " Answer with a number only.",
    " Think step by step.",
    " Be brief.",
)
TEMPERATURE_TEXTS = (
    "{t}", "{t} °C", "{t}°C", "{t} C", "{t} degrees", "{c}, {t} °C", "{c}, {t}°C", "{t}°C and {c}", "{city}: {t} °C",
    "It is {t} degrees in {city}.", "The temperature in {city} is {t} °C.", "In {city} it is {t} °C and {c}.",
    "Temperature: {t} °C, {c}", "{city}: {c}, {t} degrees", "The weather in {city} is {c}, {t}°C.",
)  # fmt: skip
RESULT_TEXTS = (
    '{{"result": "{r}"}}', '{{"answer": {r}}}', '{{"result":{r},"ok":true}}', "The result is {r}.", "= {r}",
    "Result: {r}",
)  # fmt: skip
CALCULATOR_FAILURES = ("timeout", "service unavailable", "invalid expression", "calculator is down", "out of memory")
SCHEMA_DIALECTS = ("http://json-schema.org/draft-07/schema#", "https://json-schema.org/draft/2020-12/schema")
CLIENT_DESCRIPTIONS = {
    "get_weather": (
        "Weather of a city", "The weather in a city now, with its temperature.", "Get the temperature in a city.",
        "Get the current temperature and weather of a city as JSON.", "Weather", "Current weather by city name",
        "Return the weather for the given city.", "Fetches weather data for a location.", "Tells the weather.",
    ),
    "calculator": (
        "Evaluate an arithmetic expression, e.g. 2 + 3 * 4.", "Work out an expression.", "Calculator for + - * /.",
        "Evaluates a mathematical expression and returns a number.", "Does arithmetic.", "Evaluate a sum.",
        "Calculates the result of a math expression given as text.", "Calculator", "Compute numbers exactly",
    ),
}  # fmt: skip

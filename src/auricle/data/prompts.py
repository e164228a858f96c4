"""Phrasings of the questions that `auricle.data.wording` answers, as users and benchmarks write them."""

CAPTION = (
    "Describe the audio in one sentence.",
    "Describe the audio.",
    "Describe this audio clip.",
    "Describe the sound.",
    "Describe what you hear.",
    "What do you hear?",
    "What can you hear in this audio?",
    "What is happening in this recording?",
    "What is going on in the audio?",
    "Caption this audio.",
    "Write a caption for this audio.",
    "Write a short description of the audio.",
    "Give a short caption.",
    "Summarize the audio in one sentence.",
    "Tell me what you hear.",
)
TRANSCRIBE = (
    "Transcribe the audio.",
    "Transcribe this recording.",
    "Transcribe the audio into text.",
    "Transcribe what is said.",
    "Write down the spoken words.",
    "Write down what is said.",
    "Convert the speech to text.",
    "Give the transcript of the speech.",
    "What are the spoken words?",
    "Provide a transcription of the speech.",
)
EVENT = (
    "What sound do you hear?",
    "What sound is this?",
    "Which sound event is this?",
    "What makes this sound?",
    "What is the sound event in this audio?",
    "What is the source of the sound?",
    "Which sound can be heard?",
    "Identify the sound.",
    "Classify the sound.",
    "Name the sound event.",
    "What is making the noise?",
    "Which environmental sound is present?",
)
ALL_SOUNDS = (
    "What sounds do you hear?",
    "Which sounds are in the audio?",
    "What are the sounds in this recording?",
    "List all sounds.",
    "List the sounds you hear.",
    "List everything you can hear.",
    "Name all audible sounds.",
    "What can be heard?",
)
CATEGORY = (
    "Is this speech, sound, music or mixed?",
    "Is it speech, sound, music or a mixture?",
    "Does the audio contain speech, sound, music or a mix?",
    "What category of audio is this?",
    "What type of audio is this?",
    "What kind of audio is it?",
    "Which category fits: speech, sound, music or mixed?",
    "Classify the audio as speech, sound, music or mixed.",
    "Choose one: speech, sound, music, mixed.",
    "Is the audio speech, music, sound or mixed?",
    "Answer with one word: speech, sound, music or mixed.",
)
GENDER = (
    "Is the speaker male or female?",
    "Is the speaker a man or a woman?",
    "Is it a male or a female voice?",
    "Is the voice male or female?",
    "What is the gender of the speaker?",
    "What is the speaker's gender?",
    "Which gender does the speaker have?",
    "Who is speaking, a man or a woman?",
    "Identify the gender of the speaker.",
    "Tell me the gender of the voice.",
    "Male or female?",
    "Classify the speaker's gender.",
)
AGE = (
    "Is the speaker a child or an adult?",
    "Is it a child or an adult?",
    "Is this the voice of a child or an adult?",
    "Does a child or an adult speak?",
    "What is the age group of the speaker?",
    "How old is the speaker, child or adult?",
    "Child or adult?",
    "Which age group does the speaker belong to?",
)
WORDS = (
    "What is said?",
    "What is being said?",
    "What does the speaker say?",
    "What does the person say?",
    "What are they saying?",
    "What words are spoken?",
    "Which words do you hear?",
    "What did the speaker say?",
)
DIGIT = (
    "Which digit is spoken?",
    "What digit is spoken?",
    "Which digit do you hear?",
    "What number is spoken?",
    "Which number do you hear?",
    "Which number is said?",
    "What number does the speaker say?",
    "Name the spoken digit.",
)
DIGITS = (
    "Which digits are spoken?",
    "What digits do you hear?",
    "Which numbers are spoken?",
    "What numbers are said?",
    "Name the spoken digits.",
    "What is the digit sequence?",
)
LANGUAGE = (
    "Which language is spoken?",
    "What language is spoken?",
    "What language is this?",
    "What language does the speaker use?",
    "In which language does the person speak?",
    "Identify the language.",
    "Identify the spoken language.",
    "What is the language of the speech?",
)
INSTRUMENT = (
    "Which instrument is playing?",
    "What instrument is playing?",
    "Which instrument do you hear?",
    "What instrument is this?",
    "What musical instrument is played?",
    "Name the instrument.",
    "Identify the instrument.",
    "On which instrument is the music played?",
)
TEMPO = (
    "Is the music fast or slow?",
    "Is the tempo fast or slow?",
    "What is the tempo of the music?",
    "How fast is the music?",
    "Is it slow or fast music?",
    "Fast or slow?",
)
MODE = (
    "Is the music in a major or minor key?",
    "Is the music major or minor?",
    "Is it in major or minor?",
    "What is the mode of the music, major or minor?",
    "Major or minor?",
    "Which mode does the music have, major or minor?",
)
HAS_SPEECH = (
    "Is there speech?",
    "Is there speech in the audio?",
    "Does anyone speak?",
    "Is someone speaking?",
    "Can you hear a voice?",
    "Is a person talking?",
    "Does the audio contain speech?",
    "Do you hear speech?",
)
HAS_MUSIC = (
    "Is there music?",
    "Is there music in the audio?",
    "Is music playing?",
    "Can you hear music?",
    "Does the audio contain music?",
    "Do you hear music?",
    "Is an instrument playing?",
)
HAS_EVENT = (
    "Is there {thing}?",
    "Do you hear {thing}?",
    "Can you hear {thing}?",
    "Does the audio contain {thing}?",
    "Is {thing} in the audio?",
    "Can {thing} be heard?",
)
COUNT = (
    "How many people speak?",
    "How many people are speaking?",
    "How many speakers are there?",
    "How many voices do you hear?",
    "How many persons talk?",
    "Count the speakers.",
    "What is the number of speakers?",
)

COMMAND = (
    "Which command is spoken?",
    "What is the command?",
    "Which keyword is spoken?",
    "What does the command mean?",
    "Name the spoken command.",
    "Which word is said?",
)
ORDER = (
    "What is ordered?",
    "What does the speaker order?",
    "What does the person want to drink?",
    "Which drink is ordered, and how?",
    "Summarize the order.",
)
SLOTS = {  # parts of a spoken order
    "coffeeDrink": ("Which drink is ordered?", "What drink is it?"),
    "numberOfShots": ("How many shots are ordered?", "How many shots of espresso?"),
    "roast": ("Which roast is ordered?", "What roast should it be?"),
    "size": ("What size is ordered?", "How large should the drink be?"),
    "milkAmount": ("What milk is ordered?", "With which milk?"),
    "sugarAmount": ("How should it be sweetened?", "What is ordered to sweeten it?"),
}
TIMES = (
    "How many times is it heard?",
    "How often does the sound occur?",
    "How many times does the sound occur?",
    "Count the sounds.",
)
FIRST = ("What is heard first?", "Which sound comes first?", "What is the first sound?")
LOUDNESS = (
    "Is {thing} loud or faint?",
    "Is {thing} faint or loud in the background?",
    "How loud is {thing}, faint or loud?",
)
WHEN = (
    "When is {thing} heard?",
    "At what point does {thing} occur?",
    "Is {thing} heard at the beginning, in the middle or at the end?",
)
LAST = ("What is heard last?", "Which sound comes last?", "What is the last sound?")

# Events of questions whose answer is no.
COMMON_EVENTS = (
    "dog",
    "rooster",
    "rain",
    "sea_waves",
    "crackling_fire",
    "crying_baby",
    "sneezing",
    "clock_tick",
    "helicopter",
    "chainsaw",
    "siren",
    "beep",
)

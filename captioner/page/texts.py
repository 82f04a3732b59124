"""All texts of the page, in English and in Simplified Chinese."""

from __future__ import annotations

import streamlit as st

LANGUAGES = {"en": "English", "zh": "简体中文"}

TEXTS: dict[str, tuple[str, str]] = {
    # The frame
    "title": ("A sentence for your picture", "为你的图片写一句话"),
    "caption": ("Caption", "描述"),
    "compare": ("Compare", "比较"),
    "inside": ("Look inside", "看看内部"),
    "sentence": ("Your sentence", "你的句子"),
    "folder": ("Many pictures", "批量"),
    "about": ("About", "关于"),
    "captions_in": ("Captions in", "描述语言"),
    "language": ("Language of this page", "界面语言"),
    "loading": ("Loading the model…", "正在加载模型…"),
    "looking": ("Looking…", "正在看图…"),
    "private": (
        "Everything runs on this machine. Pictures are neither stored nor sent anywhere.",
        "一切都在本机运行。图片不会被保存，也不会发送到任何地方。",
    ),
    "no_model": ("The model cannot be loaded: {reason}.", "无法加载模型：{reason}。"),
    # Choosing pictures
    "source": ("Take the picture from", "图片来自"),
    "upload": ("File", "文件"),
    "camera": ("Camera", "相机"),
    "sample": ("Samples", "示例"),
    "drop": (
        "Drop up to {count} pictures here, of at most {size} MB and {pixels} million pixels each",
        "把图片拖到这里：最多 {count} 张，每张不超过 {size} MB、{pixels} 百万像素",
    ),
    "take": (
        "Take a picture (from another machine, browsers allow this only over https)",
        "拍一张照片（从其他设备访问时，浏览器只允许在 https 下使用相机）",
    ),
    "portrait": ("Grace Hopper (photograph, US Navy)", "格蕾丝·霍珀（照片，美国海军）"),
    "beach": ("The beach (drawn)", "海滩（绘制）"),
    "snow": ("The mountains (drawn)", "雪山（绘制）"),
    "boat": ("The boat (drawn)", "小船（绘制）"),
    "broken": ("{name} cannot be captioned: {reason}.", "无法描述 {name}：{reason}。"),
    "full": (
        "Only {count} pictures fit here, so the oldest were removed. Use “Many pictures” for more.",
        "这里最多放 {count} 张图片，最早的已被移除。更多图片请使用“批量”。",
    ),
    "which": ("Picture", "图片"),
    "clear": ("Remove all", "全部移除"),
    "remove": ("Remove", "移除"),
    # A caption
    "no_words": ("(no words)", "（没有词）"),
    "sure": ("{percent} per word", "平均每词 {percent}"),
    "sure_help": (
        "The geometric mean of the probabilities that the model gave to the words of the caption. 100% means that it was certain of every word, 10% that each word was one of ten equally likely ones.",
        "模型给这句话中每个词的概率的几何平均。100% 表示它对每个词都确定无疑，10% 表示每个词都相当于十选一。",
    ),
    "times": ("drawn {count} times", "抽到 {count} 次"),
    "save": ("Save as text", "存为文本"),
    "cost": (
        "Encoding the picture took {encode:.0f} ms, and writing the words {decode:.0f} ms.",
        "编码图片用时 {encode:.0f} 毫秒，写句用时 {decode:.0f} 毫秒。",
    ),
    # Compare
    "compare_intro": (
        "Three ways to turn the same probabilities into a sentence. A slider changes the sentences only: the picture is not encoded again.",
        "把同样的概率变成句子的三种方法。移动滑块只会重新写句，不会重新编码图片。",
    ),
    "greedy": ("Greedy", "贪心"),
    "greedy_is": ("takes the likeliest word at each step", "每一步取最可能的词"),
    "beam": ("Beam", "束搜索"),
    "beam_is": ("keeps the few best beginnings at each step", "每一步保留最好的几个开头"),
    "sampled": ("Drawn at random", "随机抽取"),
    "sample_is": ("draws each word at random, by its probability", "按概率随机抽取每个词"),
    "dice": ("Roll the dice for the next seed", "掷骰子：换下一个种子"),
    "max_length": ("Maximum length, in words", "最长词数"),
    "beam_size": ("Beam size", "束宽"),
    "length_penalty": ("Length penalty", "长度惩罚"),
    "num_captions": ("Captions", "句数"),
    "temperature": ("Temperature", "温度"),
    "top_k": ("Top k", "Top k"),
    "top_p": ("Top p", "Top p"),
    "seed": ("Seed", "种子"),
    "help_max_length": ("The largest number of words in a caption", "一句最多有多少个词"),
    "help_beam_size": ("The number of hypotheses kept at each step", "每一步保留多少个候选"),
    "help_length_penalty": (
        "Hypotheses are ranked by log-probability / length^a. This is a: 0 favours short captions.",
        "候选按“对数概率 ÷ 长度^a”排序，这里是 a：0 偏爱短句",
    ),
    "help_num_captions": ("How many captions to write for this picture", "为这张图片写几句"),
    "help_temperature": (
        "Below 1, likely words are drawn more often; above 1, less often",
        "低于 1 时更常抽到可能的词，高于 1 时更少",
    ),
    "help_top_k": ("Draw from the k likeliest words only; 0 means all of them", "只从最可能的 k 个词里抽；0 表示全部"),
    "help_top_p": (
        "Draw from the likeliest words that together have this probability",
        "只从概率之和达到此值的最可能的词里抽",
    ),
    "help_seed": ("Fixes the draws: the same seed gives the same captions", "固定抽取：种子相同，句子相同"),
    # Look inside
    "words_intro": (
        "The stronger the colour, the likelier the model found the word. Choose a word to look inside.",
        "颜色越深，模型越认为该出现这个词。选一个词看看内部。",
    ),
    "words_label": ("Words of the caption", "描述中的词"),
    "end": ("(end)", "（结束）"),
    "unknown": ("(unknown word)", "（未知词）"),
    "weighed": ("Words the model considered", "模型考虑过的词"),
    "weighed_is": ("The likeliest words at this place, after “{before}”", "在“{before}”之后，这个位置最可能的词"),
    "weighed_first": ("The likeliest first words", "最可能的第一个词"),
    "word": ("word", "词"),
    "probability": ("probability", "概率"),
    "where": ("Where it looked", "它看了哪里"),
    "where_alt": (
        "The picture with the part that matters most for “{word}” in warm colours: {place}",
        "图片中对“{word}”最重要的部分用暖色标出：{place}",
    ),
    "where_is": (
        "When the part {place} is hidden, “{word}” becomes {factor} times less likely. This was measured by moving a grey square over the picture ([occlusion, Zeiler and Fergus 2014](https://arxiv.org/abs/1311.2901)). The model has no attention of its own.",
        "遮住{place}之后，“{word}”的可能性降到原来的 {factor} 分之一。测量方法是用灰色方块逐处遮住图片（[遮挡法，Zeiler 和 Fergus 2014](https://arxiv.org/abs/1311.2901)）。模型本身没有注意力机制。",
    ),
    "where_none": (
        "No part of the picture matters much for “{word}”. The words before it nearly decide it.",
        "图片的任何部分对“{word}”都影响不大：它几乎由前面的词决定。",
    ),
    "top_left": ("at the top left", "左上方"),
    "top": ("at the top", "上方"),
    "top_right": ("at the top right", "右上方"),
    "left": ("on the left", "左侧"),
    "middle": ("in the middle", "中间"),
    "right": ("on the right", "右侧"),
    "bottom_left": ("at the bottom left", "左下方"),
    "bottom": ("at the bottom", "下方"),
    "bottom_right": ("at the bottom right", "右下方"),
    "tree": ("The beam", "束"),
    "tree_is": (
        "At each step the beam keeps the {size} likeliest beginnings. The caption that won is filled in. The number below a word is the log-probability of all words so far. A sentence that ends is ranked by that number divided by its length to the power of {penalty}.",
        "每一步，束都保留 {size} 个最可能的开头。实心的是胜出的句子。每个词下面是到此为止的对数概率；写完的句子按“这个数 ÷ 长度的 {penalty} 次方”排序。",
    ),
    "tree_alt": (
        "The hypotheses of the beam, step by step. The winner: {caption}",
        "束的候选，逐步展示。胜出者：{caption}",
    ),
    "state": ("The hidden state", "隐藏状态"),
    "state_is": (
        "A recurrent network reads one word at a time. All that it remembers is one vector, the hidden state h_t: {size} numbers, one column each here, blue below zero and orange above. The picture sets the first state, h_0, and the network never sees it again. Whatever the model still knows of the picture at the last word has come down these rows. Each word is chosen from the row beside it alone.",
        "循环网络每次读一个词。它记住的一切都在一个向量里，即隐藏状态 h_t：{size} 个数，这里每列一个，蓝色小于零，橙色大于零。图片只决定最初的状态 h_0，之后网络再也看不到它。写最后一个词时，模型对图片的记忆都是沿着这些行传下来的。每个词都只由它旁边的那一行选出。",
    ),
    "state_alt": ("{size} numbers of the hidden state that chose “{word}”", "选出“{word}”的隐藏状态的 {size} 个数"),
    # Your sentence
    "sentence_intro": (
        "How likely does the model find your own sentence for this picture?",
        "模型认为你的句子有多适合这张图片？",
    ),
    "your_sentence": ("Your sentence", "你的句子"),
    "example": ("a dog runs on the grass", "一只狗在草地上跑"),
    "yours": ("Yours", "你的"),
    "its_own": ("The model's own", "模型自己的"),
    "own_likelier": (
        "Per word, the model finds its own sentence {factor} times as likely as yours.",
        "平均到每个词，模型认为自己的句子的可能性是你的 {factor} 倍。",
    ),
    "yours_likelier": (
        "Per word, the model finds your sentence {factor} times as likely as its own. Beam search does not always find the likeliest sentence.",
        "平均到每个词，模型认为你的句子的可能性是它自己的 {factor} 倍。束搜索并不总能找到最可能的句子。",
    ),
    "as_likely": ("Per word, the model finds both sentences equally likely.", "平均到每个词，模型认为两句同样可能。"),
    "not_known": (
        "These words are not in the model's vocabulary and are scored as unknown words: {words}",
        "不在模型的词表里，按未知词计分：{words}",
    ),
    # Many pictures
    "folder_intro": (
        "Drop many pictures, or a zip of them: at most {count} pictures, {size} MB a file, {pixels} million pixels a picture, and {total} MB when unpacked",
        "拖入多张图片或一个 zip：最多 {count} 张；每个文件不超过 {size} MB，每张不超过 {pixels} 百万像素，解压后不超过 {total} MB",
    ),
    "start": ("Write captions", "开始描述"),
    "progress": ("{done} of {total} pictures", "{done} / {total} 张"),
    "summary": ("{done} captioned, {failed} could not be read", "已描述 {done} 张，{failed} 张无法读取"),
    "too_large": (
        "Together these files are larger than {total} MB, so none was read. Please choose fewer at a time.",
        "这些文件合计超过 {total} MB，因此都没有读取。请一次少选一些。",
    ),
    "too_many": ("Only the first {count} pictures were read.", "只读取了前 {count} 张图片。"),
    "picture": ("picture", "图片"),
    "file": ("file", "文件"),
    "trouble": ("problem", "问题"),
    "table": ("Table", "表格"),
    "gallery": ("Gallery", "图库"),
    "sidecars": ("Text files (zip)", "文本文件（zip）"),
    "web_page": ("Web page", "网页"),
    # About
    "how": ("How it works", "它是怎样工作的"),
    "how_is": (
        "A convolutional network, {encoder}, turns the picture into one vector of {features} numbers, its *feature*. The feature sets the first hidden state of a recurrent network ({cell}), which then writes the caption word by word. At each step it gives a probability to each of {words} words. Both networks were trained on pictures that people had described.",
        "卷积网络 {encoder} 把图片变成一个 {features} 维向量，即它的*特征*。特征决定循环网络（{cell}）最初的隐藏状态，然后循环网络逐词写出描述；每一步它给 {words} 个词各一个概率。两个网络都在人们描述过的图片上训练而成。",
    ),
    "how_alt": (
        "A picture goes through a convolutional network and becomes a feature. The feature sets the first hidden state. From state to state the words come out one by one.",
        "图片经卷积网络变成特征，特征决定最初的隐藏状态，然后从一个状态到下一个状态，词一个接一个地写出。",
    ),
    "model": ("The model", "模型"),
    "model_card": ("Model card", "模型卡"),
    "scores": (
        "On pictures it did not learn from: {scores}",
        "在没有学过的图片上：{scores}",
    ),
    "limits": (
        "The model is small and often wrong. It knows what its training pictures showed. Do not rely on what it says about people.",
        "模型很小，经常出错。它只了解训练图片里的内容。不要依赖它对人的描述。",
    ),
    "looked_at": (
        "A person looked at 200 of its captions one by one and found 61 of them right.",
        "有人逐条查看了它的 200 句描述，其中 61 句正确。",
    ),
    "terms": (
        "The models that come with captioner were trained on Flickr8k, whose terms allow only non-commercial research and education. Most of its pictures show people and dogs outdoors. The code is under the MIT licence.",
        "随附模型在 Flickr8k 上训练，其条款只允许非商业的研究和教育用途；图片大多是户外的人和狗。代码采用 MIT 许可证。",
    ),
}


def language() -> str:
    """The visitor's choice, at first what the browser prefers."""
    if "language" not in st.session_state:
        st.session_state.language = "zh" if (st.context.locale or "").lower().startswith("zh") else "en"
    chosen: str = st.session_state.language
    return chosen


def say(key: str, **values: object) -> str:
    """A text of TEXTS in the visitor's language."""
    return TEXTS[key][list(LANGUAGES).index(language())].format(**values)

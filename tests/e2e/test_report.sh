#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# blockq report: a page that is well-formed and has what the run directories say; hostile files; what is no run is refused.
leaks=1
. "$(dirname "$0")/lib.sh"
command -v python3 >/dev/null || { echo "skipped: no python3" && exit 77; }
micro qwen2
recipe r.json m_qwen2 4
cp -r m_qwen2 'm<b>&"x'
expect 0 "$blockq" run r.json -o one
expect 0 mpi 2 run r.json --set 'model=m<b>&"x' --set bits.decoder.bits=3 -o two
expect 75 "$blockq" run r.json --set seed=1 --stop-after-blocks 1 -o part

# A page by itself: tags are closed in order, nothing is loaded from elsewhere.
page() {
    check "$1: well-formed, alone" python3 - "$1" <<'PY'
import html.parser, sys
class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = []
    def handle_starttag(self, tag, attrs):
        assert tag not in ("script", "link", "img", "iframe", "b", "x"), tag
        assert not any(name in ("src", "href") or name.startswith("on") for name, _ in attrs), attrs
        if tag != "meta":
            self.open.append(tag)
    def handle_startendtag(self, tag, attrs):
        pass
    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag
text = open(sys.argv[1], encoding="utf-8").read()
page = Page()
page.feed(text)
assert not page.open and "nan" not in text and "inf" not in text.replace("info", ""), page.open
PY
}
expect 0 "$blockq" report one -o one.html
page one.html
check "every block" [ "$(grep -c '<title>block [12]: [0-9.]* s, loss ' one.html)" = 2 ]
check "the evaluation" grep -q "<td class=\"n\">$(sed -n 's/.*"adascale": \([0-9]*\.[0-9]\).*/\1/p' one/result.json)" one.html
for word in original 'round to nearest' adascale 'MB planned' OpenBLAS 'samples of 24 tokens' '&#34;iterations&#34;: 4'; do
    check "$word" grep -q "$word" one.html
done
expect 0 "$blockq" report one two part -o all.html
page all.html
check "names are escaped" grep -q 'm&#60;b&#62;&#38;&#34;x' all.html
check "two points" [ "$(grep -c '<circle class="c[02]"' all.html)" = 2 ]
check "a run that is not finished has no number" grep -q '<td>part</td><td class="n">4.000</td><td class="n">–</td>' all.html

# damaged files leave gaps
cp -r one hurt
printf '\377{' >hurt/result.json
head -c 1000 /dev/urandom >hurt/run.csv
printf 'part,block,sweep,phase,wall_s,peak_bytes,stages,replicas\nblock,1,0,0,1e999,nan,x,-3\nblock,99999999999,0,0,1,1,1,1\nblock,7,0,0,2,3\n<i>,,,,4,,,,,,\n' >>hurt/run.csv
echo '{"phases": 3, "bits": [], "calibration": {"samples": "<i>"}, "outputs": [{"dir": "../one"}]}' >hurt/recipe.json
expect 0 "$blockq" report hurt -o hurt.html
page hurt.html

expect 2 "$blockq" report one m_qwen2 -o no.html && one_error 'm_qwen2: there is no run'
expect 2 "$blockq" report one -o none/no.html && one_error "'none/no.html' cannot be written"
expect 2 "$blockq" report one && one_error '.-out is missing'
check "nothing was written" [ ! -e no.html ]
finish

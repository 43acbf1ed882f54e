// Draws the pairs near what is seen, in blocks; a block that is far away is an empty box of its height.
const BLOCK = 20, NEAR = "1500px 0px";
const KEPT = "svco data view " + location.pathname;
const all = [], main = document.getElementById("pairs"), filters = document.getElementById("filters");
const choosable = "choosable" in document.body.dataset;
let chosen = {}, found = [], height = 500;

function show(...pairs) { for (const pair of pairs) all.push(pair); } // called by the scripts with the pairs

function begin() {
  for (const pair of all) {
    const texts = pair.answers.map(side => side.map(piece => piece[0]).join(""));
    pair.text = [pair.name, pair.query, ...texts, ...Object.values(pair.facts), ...pair.reasons].join("\n").toLowerCase();
  }
  try { chosen = JSON.parse(localStorage.getItem(KEPT)) || {}; } catch { /* a browser that keeps nothing */ }
  filter();
}

// Which pairs, in which order.
function filter() {
  const want = new FormData(filters), words = want.get("search").toLowerCase().split(/\s+/).filter(Boolean);
  const bounds = [...filters.querySelectorAll("[data-score]")].filter(input => input.value !== "");
  const picked = ["type", "source", "reason", "choice"].filter(name => want.get(name));
  const has = {
    type: (pair, value) => pair.type === value,
    source: (pair, value) => pair.source === value,
    reason: (pair, value) => pair.reasons.some(reason => reason.split(":")[0] === value),
    choice: (pair, value) => (chosen[pair.name] || "undecided") === value,
  };
  found = all.filter(pair => words.every(word => pair.text.includes(word))
    && picked.every(name => has[name](pair, want.get(name)))
    && bounds.every(input => {
      const score = pair.scores[input.dataset.score];
      return score !== undefined && (input.dataset.bound === "least" ? score >= +input.value : score <= +input.value);
    }));
  const order = want.get("order");
  if (order) {
    const name = order.slice(1), sign = order[0] === "+" ? 1 : -1;
    const score = pair => pair.scores[name] === undefined ? Infinity : sign * pair.scores[name];
    found.sort((a, b) => score(a) - score(b) || 0);
  }
  document.body.dataset.both = want.get("both");
  watcher.disconnect();
  main.replaceChildren();
  for (let first = 0; first < found.length; first += BLOCK) {
    const block = document.createElement("div");
    block.first = first;
    block.style.height = Math.min(BLOCK, found.length - first) * height + "px";
    main.append(block);
    watcher.observe(block);
  }
  count();
}

const watcher = new IntersectionObserver(changes => {
  for (const {target, isIntersecting} of changes) isIntersecting ? fill(target) : empty(target);
}, {rootMargin: NEAR});

function fill(block) {
  if (block.firstChild) return;
  block.append(...found.slice(block.first, block.first + BLOCK).map((pair, n) => draw(pair, block.first + n)));
  block.style.height = "";
}

function empty(block) {
  if (!block.firstChild || block.contains(document.activeElement)) return;
  block.style.height = block.offsetHeight + "px";
  block.replaceChildren();
}

function draw(pair, place) {
  const card = document.getElementById("pair").content.cloneNode(true).firstElementChild;
  const scores = Object.entries(pair.scores).map(([name, value]) => `${name} ${value}`);
  card.pair = pair;
  card.dataset.place = place;
  card.dataset.name = pair.name;
  card.querySelector(".type").textContent = pair.kind && pair.kind !== pair.type ? `${pair.type}: ${pair.kind}` : pair.type;
  card.querySelector(".about").textContent = [pair.source, ...scores, pair.name].filter(Boolean).join(" · ");
  card.querySelector(".query").textContent = pair.query || "(no question yet)";
  card.querySelectorAll(".side").forEach((side, n) => {
    side.querySelector(".frame").append(picture(pair.images[n], `picture ${n}`));
    side.querySelector("figcaption").textContent = `picture ${n}` + (pair.images[n].size ? `, ${pair.images[n].size}` : "");
    for (const [text, differs] of pair.answers[n]) {
      const piece = document.createElement(differs ? "mark" : "span");
      piece.textContent = text;
      side.querySelector(".answer").append(piece);
    }
  });
  const stack = card.querySelector(".stack");
  stack.append(...pair.images.map((image, n) => picture(image, `picture ${n}`)));
  card.querySelector(".both figcaption").textContent = "one over the other";
  card.querySelector(".both input").addEventListener("input", event => stack.style.setProperty("--at", event.target.value + "%"));
  for (const reason of pair.reasons) {
    const item = document.createElement("li");
    item.textContent = reason;
    card.querySelector(".reasons").append(item);
  }
  for (const [name, value] of Object.entries(pair.facts)) {
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    [dt.textContent, dd.textContent] = [name, value];
    card.querySelector(".facts").append(dt, dd);
  }
  mark(card);
  return card;
}

function picture(image, alt) {
  if (!image.src) {
    const missing = document.createElement("span");
    missing.className = "missing";
    missing.textContent = image.why;
    return missing;
  }
  const img = document.createElement("img");
  img.loading = "lazy";
  img.decoding = "async";
  img.alt = alt;
  if (image.small) img.className = "small";
  img.src = image.src;
  return img;
}

// Choices.
function mark(card) {
  const choice = chosen[card.pair.name] || "";
  card.dataset.choice = choice;
  card.querySelector(".choice").textContent = choice;
}

function choose(card, choice) {
  if (!choosable || !card) return;
  if (choice) chosen[card.pair.name] = choice; else delete chosen[card.pair.name];
  try { localStorage.setItem(KEPT, JSON.stringify(chosen)); } catch { /* full, or not allowed: they can still be saved */ }
  mark(card);
  count();
}

function count() {
  const known = Object.values(chosen), of = choice => known.filter(one => one === choice).length;
  const said = `${found.length.toLocaleString("en")} of ${all.length.toLocaleString("en")} pairs`;
  document.getElementById("count").textContent = choosable ? `${said}; ${of("accept")} accepted, ${of("reject")} rejected` : said;
}

function save() {
  const told = JSON.stringify({gallery: document.title, choices: chosen}, null, 1) + "\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([told], {type: "application/json"}));
  link.download = "choices.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function load(event) {
  try {
    const {choices} = JSON.parse(await event.target.files[0].text());
    if (!choices || typeof choices !== "object") throw new Error("it holds no choices");
    Object.assign(chosen, choices);
    localStorage.setItem(KEPT, JSON.stringify(chosen));
  } catch (error) { alert(`This file cannot be loaded: ${error.message}`); }
  event.target.value = "";
  filter();
}

// Keys and clicks.
function current() { return document.activeElement && document.activeElement.closest && document.activeElement.closest(".pair"); }

function go(step) {
  const card = current(), top = card ? +card.dataset.place : firstSeen() - (step > 0 ? 1 : 0);
  const place = Math.max(0, Math.min(found.length - 1, top + step));
  const block = main.children[Math.floor(place / BLOCK)];
  if (!block) return;
  fill(block);
  const next = block.children[place - block.first];
  next.focus({preventScroll: true});
  next.scrollIntoView({block: "nearest"});
}

function firstSeen() {
  const below = Math.max(0, filters.getBoundingClientRect().bottom);
  const seen = [...main.querySelectorAll(".pair")].find(card => card.getBoundingClientRect().bottom > below);
  return seen ? +seen.dataset.place : 0;
}

document.addEventListener("keydown", event => {
  const typing = event.target.matches("input:not([type=range]), select, textarea");
  if (event.key === "Escape" && typing) event.target.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const both = filters.elements.both;
  const keys = {
    j: () => go(1),
    k: () => go(-1),
    a: () => choose(current(), "accept"),
    r: () => choose(current(), "reject"),
    u: () => choose(current(), ""),
    d: () => { both.value = both.value === "slider" ? "difference" : "slider"; document.body.dataset.both = both.value; },
    "/": () => filters.elements.search.focus(),
  };
  if (!keys[event.key]) return;
  keys[event.key]();
  event.preventDefault();
});
main.addEventListener("click", event => {
  const button = event.target.closest("[data-choice]:is(button)"), card = event.target.closest(".pair");
  if (button) choose(card, chosen[card.pair.name] === button.dataset.choice ? "" : button.dataset.choice);
  else if (card && !event.target.matches("input")) card.focus({preventScroll: true});
});
let waiting;
filters.addEventListener("input", event => {
  if (event.target.name === "both") { document.body.dataset.both = event.target.value; return; }
  if (event.target.id === "load") return;
  clearTimeout(waiting);
  waiting = setTimeout(() => { scrollTo(0, 0); filter(); }, event.target.name === "search" ? 150 : 0);
});
filters.addEventListener("submit", event => event.preventDefault());
if (choosable) {
  document.getElementById("save").addEventListener("click", save);
  document.getElementById("load").addEventListener("change", load);
}

// The explorer: BERT in the page. Click a token, choose what the model reads there and what its
// label is, and see what is scored.
//
// `state` is the one object; whatever is shown is computed from it. For the cases, numbers.js holds
// what the model as it ships says, so they work at once, and from a file; for everything else
// worker.js runs the model. This is a plain script, because a module doesn't load from a file.

const IGNORE = -100;
const [PAD, CLS, SEP, MASK] = [0, 101, 102, 103];
const LONGEST = 128; // tokens; the model reads up to 512, and takes longer for it
const MOST_PADDING = 32;
const WAIT = 300; // milliseconds without a key before a typed sentence is read
const GUESSING = Math.log(30522); // nats: a full bar

// ---- The arithmetic: what mlmtutor.masked_lm_loss does --------------------------------------

/** -log p(label) from one row of logits: log-softmax, then the entry of the label. */
function surprise(row, label) {
  if (!(label >= 0 && label < row.length)) throw new RangeError(`${label} is no id`);
  const largest = row.reduce((a, b) => Math.max(a, b), -Infinity);
  let sum = 0;
  for (const logit of row) sum += Math.exp(logit - largest);
  return Math.log(sum) - (row[label] - largest);
}

/** The loss at each position, NaN where nothing is scored, and the mean over what is. */
function maskedLmLoss(answer, labels) {
  const each = labels.map((label, i) => (label === IGNORE ? NaN : answer.cost(i, label)));
  const kept = each.filter((_, i) => labels[i] !== IGNORE);
  return { each, scored: kept.length, mean: kept.reduce((a, b) => a + b, 0) / kept.length };
}

/** The k largest entries of one row of logits, as {id, p}. */
function mostProbable(row, k = 5) {
  const best = [];
  row.forEach((logit, id) => {
    if (best.length === k && logit <= best[k - 1].logit) return;
    best.push({ id, logit });
    best.sort((a, b) => b.logit - a.logit);
    best.length = Math.min(best.length, k);
  });
  return best.map(({ id }) => ({ id, p: Math.exp(-surprise(row, id)) }));
}

/** What the model answers, from its logits: one row for each of `length` positions. */
function fromLogits(logits, length) {
  const size = logits.length / length;
  const row = (i) => logits.subarray(i * size, (i + 1) * size);
  return { cost: (i, label) => surprise(row(i), label), best: (i) => mostProbable(row(i)) };
}

/** The numbers that base64 holds, two bytes each. */
const words = (text) =>
  new Uint16Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);

/** What the model answers, from numbers.js: ids and -log p in thousandths, for each position. */
function fromStored(positions) {
  const rows = positions.map(([ids, nats]) => {
    const costs = words(nats);
    return new Map([...words(ids)].map((id, k) => [id, costs[k] / 1000]));
  });
  return {
    cost: (i, label) => rows[i].get(label), // undefined: not among those that are stored
    best: (i) => [...rows[i]].slice(0, 5).map(([id, nats]) => ({ id, p: Math.exp(-nats) })),
  };
}

// ---- The state, and what follows from it ----------------------------------------------------

const state = {
  text: "", // as typed
  tokens: [], // its ids, [CLS] and [SEP] included
  padding: 0, // how many [PAD] stand behind them
  replacements: {}, // position -> id that the model reads in place of the token
  labels: {}, // position -> id; a position that is not here has the label -100
  selected: 0,
  answer: null, // of what the model reads now; null until it has answered
  fresh: false, // a sentence was typed, and nothing was chosen yet
};

const originals = () => [...state.tokens, ...Array(state.padding).fill(PAD)];
const inputIds = () => originals().map((id, i) => state.replacements[i] ?? id);
const labelIds = () => originals().map((_, i) => state.labels[i] ?? IGNORE);
const attention = () => originals().map((_, i) => Number(i < state.tokens.length));

/** A state as the part of the address after #, and back. */
function toFragment({ text, padding, selected, replacements, labels }) {
  const pairs = (ids) => Object.entries(ids).map(([i, id]) => `${i}:${id}`).join(",");
  const parts = { text, padding, at: selected, input: pairs(replacements), labels: pairs(labels) };
  return String(new URLSearchParams(parts)).replaceAll("%3A", ":").replaceAll("%2C", ",");
}

function fromFragment(fragment) {
  const parts = new URLSearchParams(fragment);
  const number = (name) => Number.parseInt(parts.get(name), 10) || 0;
  const pairs = (name) => Object.fromEntries((parts.get(name) ?? "").split(",")
    .filter((pair) => /^\d+:\d+$/.test(pair)).map((pair) => pair.split(":").map(Number)));
  const replacements = pairs("input");
  const selected = parts.has("at") ? number("at") : Number(Object.keys(replacements)[0] ?? 0);
  return { text: parts.get("text") ?? "", replacements, labels: pairs("labels"), selected,
    padding: Math.min(Math.max(number("padding"), 0), MOST_PADDING) };
}

const same = (one, other) => // whatever is selected
  toFragment({ ...one, selected: 0 }) === toFragment({ ...other, selected: 0 });

// ---- The page ----------------------------------------------------------------------------------

function startPage() {
  const $ = (id) => document.getElementById(id);
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const home = new URL(".", document.currentScript.src);
  const presets = new Map(Object.entries(JSON.parse($("x-presets").textContent)));
  const steps = JSON.parse($("x-steps").textContent);
  const stored = NUMBERS; // of numbers.js
  const vocabulary = []; // id -> token; those of the cases until the model is loaded
  const tokens = stored.names[1].split(" ");
  words(stored.names[0]).forEach((id, k) => { vocabulary[id] = tokens[k]; });
  const texts = new Map(stored.texts); // sentence -> its ids
  const answers = new Map(stored.inputs); // what the model reads -> what it answers
  let worker, loading, typing;
  let running = false, again = false;
  let step = -1, guessed = false, right = 0; // of the tour
  const asked = []; // what the worker was asked: how to go on with its answers

  // ---- The model --------------------------------------------------------------------------------

  function ask(task, argument) {
    return new Promise((resolve, reject) => {
      const number = asked.push({ resolve, reject }) - 1;
      worker.postMessage({ number, task, argument });
    });
  }

  function hear({ data: { number, result, error, loaded } }) {
    if (loaded !== undefined) {
      $("x-progress").value = loaded;
      $("x-loaded").textContent = `${(loaded / 1e6).toFixed(0)} MB`;
    } else if (error) asked[number].reject(new Error(error));
    else asked[number].resolve(result);
  }

  /** Load the model, once; where that fails, say why, and let the reader try again. */
  function model() {
    loading ??= load().catch((error) => {
      loading = undefined;
      $("x-loading").hidden = true;
      $("x-model").hidden = false;
      $("x-problem").textContent = `The model could not be loaded: ${error.message}`;
      throw error;
    });
    return loading;
  }

  async function load() {
    const { model: folder, missing } = $("explorer").dataset;
    if (missing) throw new Error(missing);
    if (location.protocol === "file:") {
      throw new Error("on a page that is opened as a file, browsers load none. In the folder of the "
        + "project call .venv/bin/python -m http.server --bind 127.0.0.1 --directory build/site, "
        + "and open http://127.0.0.1:8000/explorer.html. The cases work here.");
    }
    $("x-model").hidden = true;
    $("x-loading").hidden = false;
    $("x-problem").textContent = "";
    worker?.terminate(); // of an attempt that failed
    worker = new Worker(new URL("worker.js", home), { type: "module" });
    worker.onmessage = hear;
    const pairs = await new Promise((resolve, reject) => {
      worker.onerror = (event) => reject(new Error(event.message || "the worker did not start"));
      ask("load", { folder }).then(resolve, reject);
    });
    for (const [token, id] of pairs) vocabulary[id] = token;
    $("x-loading").hidden = true;
  }

  /** The ids of a sentence: stored ones, or those of the tokenizer, which comes with the model. */
  async function encode(text) {
    if (texts.has(text)) return texts.get(text);
    await model();
    return ask("encode", { text, special: true });
  }

  const key = () => [...inputIds(), ...attention()].join();

  /** Show what the model answers to the state; the newest request wins. */
  async function run(exact = false) {
    const known = exact ? undefined : answers.get(key());
    state.answer = known ? fromStored(known) : null;
    again = running;
    show();
    if (known || running) return;
    running = true;
    try {
      do {
        await model();
        again = false;
        const [ids, mask] = [inputIds(), attention()];
        const logits = await ask("forward", { ids, mask });
        if (!again) state.answer = fromLogits(logits, ids.length);
      } while (again && !state.answer);
    } catch (error) {
      if (loading) $("x-note").textContent = `The model did not answer: ${error.message}`;
    }
    running = false;
    show();
  }

  // ---- Opening a state --------------------------------------------------------------------------

  /** The state that the address names: a preset by its id, or one that is written out. */
  function stateOf(hash) {
    const named = hash.slice(1).replace(/^case=/, "");
    return presets.get(named) ?? (named.startsWith("text=") ? named : undefined);
  }

  async function open(fragment) {
    const { text, padding, replacements, labels, selected } = fromFragment(fragment);
    $("x-text").value = text;
    await read(text);
    const length = state.tokens.length + padding;
    const known = (pairs) => Object.fromEntries(Object.entries(pairs)
      .filter(([i, id]) => i < length && vocabulary[id] !== undefined));
    Object.assign(state, { padding, replacements: known(replacements), labels: known(labels),
      selected: Math.max(0, Math.min(selected, length - 1)), fresh: false });
    $("x-padding").value = padding;
    await run();
  }

  /** Read a sentence. What was chosen stays where the token has stayed. */
  async function read(text) {
    const before = state.tokens;
    const all = await encode(text);
    const cut = all.length > LONGEST;
    const tokens = cut ? [...all.slice(0, LONGEST - 1), SEP] : all;
    const kept = (pairs) => Object.fromEntries(
      Object.entries(pairs).filter(([i]) => i < tokens.length && tokens[i] === before[i]));
    Object.assign(state, { text, tokens, answer: null, replacements: kept(state.replacements),
      labels: kept(state.labels), selected: Math.min(state.selected, tokens.length - 1) });
    note(cut
      ? `The sentence has ${all.length} tokens; the first ${LONGEST - 1} and [SEP] are read.` : "");
  }

  async function typed() {
    leave();
    const before = state.tokens;
    try {
      await read($("x-text").value);
    } catch {
      return $("explorer").setAttribute("aria-busy", "false"); // model() has said why
    }
    const mask = state.tokens.findIndex((id, i) => id === MASK && before[i] !== MASK);
    if (mask > 0) state.selected = mask;
    state.fresh = true;
    await run();
  }

  // ---- What is shown ----------------------------------------------------------------------------

  const name = (id) => vocabulary[id] ?? "(no token)";
  const note = (text) => { $("x-note").textContent = text; };
  const fixed = (number) => (number === undefined ? "?" : Number.isNaN(number) ? "nan" : number.toFixed(2));
  const probability = (p) => (Number.isNaN(p) ? "?" : p < 0.001 ? p.toExponential(1) : p.toFixed(3));
  const bar = (share) => `--bar: ${Math.round(100 * Math.min(share, 1))}%`;
  const concealed = () => step >= 0 && !guessed;

  function show() {
    const loss = state.answer && maskedLmLoss(state.answer, labelIds());
    const [id] = [...presets].find(([, preset]) => same(fromFragment(preset), state)) ?? [""];
    const told = document.getElementById(id)?.closest("section").querySelector("p");
    $("x-case").value = id;
    $("x-see").replaceChildren(...(told && step < 0 ? told.cloneNode(true).childNodes : []));
    $("x-live").className = step < 0 || (guessed && step + 1 === steps.length) ? "" : "x-touring";
    $("x-panel").hidden = concealed() || !state.tokens.length;
    showTable(loss);
    showPanel();
    $("x-result").textContent = concealed() ? "" : summary(loss);
    const stuck = !state.answer && !running && $("x-problem").textContent;
    $("explorer").setAttribute("aria-busy", String(!state.answer && !stuck));
    if (state.answer) history.replaceState(null, "", `#${id ? `case=${id}` : toFragment(state)}`);
  }

  function summary(loss) {
    if (!loss) return loading ? "Computing …" : "This needs the model.";
    const places = labelIds().flatMap((label, i) => (label === IGNORE ? [] : [i]));
    if (!places.length && state.fresh) {
      return originals()[state.selected] === MASK
        ? "Nothing is scored yet. Which word stands at [MASK]? Type it under “another word”, or take "
          + "one of the five."
        : "Nothing is scored yet. Click a token, let the model read [MASK], then take the original "
          + "as its label.";
    }
    const some = places.length && places.length <= 6;
    const one = loss.scored === 1;
    const where = some ? ` (${one ? "position" : "positions"} ${places.join(", ")})` : "";
    const mean = places.length
      ? `mean of ${loss.scored} ${one ? "value" : "values"}${where} = ${fixed(loss.mean)}`
      : "0 / 0 = nan";
    return `${loss.scored} of ${originals().length} positions ${one ? "is" : "are"} scored (✓). `
      + `loss = ${mean}`;
  }

  /** The rows of the table: the name of the row, and for each position a text, a style, a bar. */
  function rows(loss) {
    const [inputs, labels, before] = [inputIds(), labelIds(), originals()];
    const scored = (i) => labels[i] !== IGNORE;
    const value = (i, number) => (!scored(i) ? "" : loss ? number(loss.each[i]) : "…");
    const each = (cell) => inputs.map((_, i) => cell(i));
    const replaced = (i) =>
      inputs[i] === MASK || inputs[i] !== before[i] || (scored(i) && labels[i] !== inputs[i]);
    const given = [
      ["position", each((i) => [String(i), "muted"])],
      ["token", each((i) => [name(inputs[i]),
        replaced(i) ? "replaced" : [PAD, CLS, SEP].includes(inputs[i]) ? "special" : ""])],
      ["input_ids", each((i) => [String(inputs[i]), ""])],
      ...(state.padding ? [["attention_mask", each((i) => [String(attention()[i]), ""])]] : []),
      ["labels", each((i) => [String(labels[i]), scored(i) ? "scored" : "muted"])],
    ];
    return concealed() ? given : [...given,
      ["scored", each((i) => (scored(i) ? [`✓ ${name(labels[i])}`, "strong"] : ["·", "muted"]))],
      ["p(label)", each((i) => [value(i, (nats) => probability(Math.exp(-nats))), ""])],
      ["−log p(label)", each((i) => [value(i, fixed), "strong x-bar",
        scored(i) && loss?.each[i] ? bar(loss.each[i] / GUESSING) : ""])],
    ];
  }

  function showTable(loss) {
    const all = rows(loss);
    const focused = $("x-table").contains(document.activeElement);
    const tables = [];
    for (let start = 0; start < originals().length;) {
      const stop = endOfBlock(all, start);
      const body = all.map(([title, cells]) => {
        const shown = cells.slice(start, stop).map((one, k) => cell(title, one, start + k));
        return make("tr", {}, make("th", { scope: "row", textContent: title }), ...shown);
      });
      const caption = make("caption", {
        textContent: stop - start > 1 ? `positions ${start} to ${stop - 1}` : `position ${start}` });
      tables.push(make("table", {}, caption, make("tbody", {}, ...body)));
      start = stop;
    }
    $("x-table").replaceChildren(...tables);
    if (focused) token(state.selected)?.focus();
  }

  /** Where the block that begins at `start` ends: where the page does, so that nothing scrolls. */
  function endOfBlock(all, start) {
    const letter = parseFloat(getComputedStyle($("x-table")).fontSize) * 0.6;
    let room = $("x-table").clientWidth - 15 * letter;
    let stop = start;
    while (stop < originals().length && (room > 0 || stop === start)) {
      const longest = Math.max(...all.map(([, cells]) => cells[stop][0].length));
      room -= Math.max(longest * letter + 14, 48);
      if (room >= 0 || stop === start) stop += 1;
    }
    return stop;
  }

  const token = (i) => $("x-table").querySelector(`[data-position="${i}"]`);

  function cell(title, [text, style, length = ""], i) {
    const chosen = i === state.selected ? " x-chosen" : "";
    const element = make(title === "position" ? "th" : "td", { className: style + chosen });
    if (length) element.style = length;
    if (title === "position") element.scope = "col";
    if (title !== "token") return Object.assign(element, { textContent: text });
    const before = originals()[i];
    const was = inputIds()[i] === before ? "" : `, replaces ${name(before)}`;
    const label = labelIds()[i] === IGNORE ? "not scored" : `label ${name(labelIds()[i])}`;
    const button = make("button", { type: "button", textContent: text, tabIndex: chosen ? 0 : -1 });
    button.dataset.position = i;
    button.setAttribute("aria-pressed", String(Boolean(chosen)));
    button.setAttribute("aria-label", `${text}, position ${i}${was}, ${label}`);
    element.append(button);
    return element;
  }

  function showPanel() {
    const i = state.selected;
    const [before, now, label] = [originals()[i], inputIds()[i], labelIds()[i]];
    $("x-which").textContent = `Position ${i}: ${name(before)}`;
    const press = (kind, value, on, text) => {
      const button = document.querySelector(`[data-${kind}="${value}"]`);
      button.setAttribute("aria-pressed", String(on));
      if (text) button.textContent = text;
      return button;
    };
    const itself = press("input", "itself", now === before, `itself: ${name(before)}`);
    press("input", "mask", now === MASK);
    press("input", "random", now !== before && now !== MASK);
    press("label", "ignore", label === IGNORE);
    const original = press("label", "original", label === before,
      `the original: ${name(before)}, ${before}`);
    itself.hidden = original.hidden = before === MASK; // 103 is not what stood there
    $("x-typed").hidden = before !== MASK;
    press("label", "mask", label === MASK);
    const best = state.answer?.best(i) ?? [];
    $("x-top").tBodies[0].replaceChildren(...best.map(({ id, p }) => {
      const button = make("button", { type: "button", textContent: name(id) });
      button.dataset.take = id;
      button.setAttribute("aria-pressed", String(id === label));
      button.setAttribute("aria-label", `${name(id)}: take it as the label`);
      const chance = make("td", { textContent: probability(p), className: "x-bar",
        style: bar(p / best[0].p) });
      return make("tr", {}, make("th", { scope: "row" }, button), make("td", { textContent: id }),
        chance);
    }));
  }

  // ---- What a reader does -----------------------------------------------------------------------

  async function setInput(choice) {
    const i = state.selected;
    const ordinary = () => {
      for (;;) {
        const id = Math.floor(Math.random() * vocabulary.length);
        if (vocabulary[id] && !name(id).startsWith("[")) return id; // neither special nor unused
      }
    };
    if (choice === "itself") delete state.replacements[i];
    else state.replacements[i] = choice === "mask" ? MASK : ordinary();
    state.fresh = false;
    await run();
  }

  /** Set a label. Where its number is not stored, the model computes it. */
  async function setLabel(id) {
    if (id === IGNORE) delete state.labels[state.selected];
    else state.labels[state.selected] = id;
    state.fresh = false;
    const unknown = labelIds().some((label, i) =>
      label !== IGNORE && state.answer && state.answer.cost(i, label) === undefined);
    await (unknown ? run(true) : show());
  }

  async function setWord(word) {
    let pieces = vocabulary.indexOf(word.toLowerCase());
    pieces = pieces > 0 ? [pieces] : undefined;
    try {
      if (!pieces) await model();
      pieces ??= await ask("encode", { text: word, special: false });
    } catch {
      return; // model() has said why
    }
    if (pieces.length === 1) return setLabel(pieces[0]);
    const said = `“${word}” is ${pieces.length} tokens: ${pieces.map(name).join(" ")}.`;
    note(pieces.length ? `${said} A label is one of them.` : "Type a word.");
  }

  function setAll(what) {
    const [before, inputs] = [originals(), inputIds()];
    const wanted = { nothing: () => false, inputs: () => true,
      replaced: (i) => inputs[i] !== before[i] };
    const source = what === "inputs" ? inputs : before;
    state.labels = Object.fromEntries([...source.entries()].filter(([i]) => wanted[what](i)));
    state.fresh = false;
    show();
    if (what === "replaced" && !Object.keys(state.labels).length) {
      note("Nothing is replaced: let the model read [MASK] somewhere first.");
    }
  }

  function select(i) {
    state.selected = Math.max(0, Math.min(i, originals().length - 1));
    show();
  }

  async function copy() {
    try {
      await navigator.clipboard.writeText(location.href);
      note("Copied. The link holds the sentence, the labels and the position that you see.");
    } catch {
      note("Copy the address of this page: it holds what you see.");
    }
  }

  // ---- The tour ---------------------------------------------------------------------------------

  async function go(to) {
    const { state: fragment, asks, choices } = steps[to];
    [step, guessed] = [to, false];
    $("x-tour").hidden = false;
    $("x-start").hidden = $("x-next").hidden = true;
    $("x-leave").hidden = false;
    $("x-step").textContent = `Step ${to + 1} of ${steps.length}`;
    $("x-asks").innerHTML = asks;
    $("x-says").replaceChildren();
    $("x-choices").replaceChildren(...choices.map((choice, number) => {
      const button = make("button", { type: "button", innerHTML: `${number + 1} ${choice}` });
      button.dataset.guess = number;
      return button;
    }));
    await open(fragment);
    $("x-choices").firstChild.focus();
  }

  function guess(number) {
    const { right: answer, says } = steps[step];
    [guessed, right] = [true, (step && right) + (number === answer)];
    for (const button of $("x-choices").children) {
      button.disabled = true;
      button.setAttribute("aria-pressed", String(Number(button.dataset.guess) === answer));
    }
    const loss = fixed(maskedLmLoss(state.answer, labelIds()).mean);
    const last = step + 1 === steps.length;
    const total = last ? ` You guessed ${right} of ${steps.length}.` : "";
    $("x-says").innerHTML = (number === answer ? "" : "No. ") + says.replace("{loss}", loss) + total;
    $("x-next").hidden = last;
    $("x-leave").textContent = last ? "End the tour" : "Leave the tour";
    show();
    (last ? $("x-leave") : $("x-next")).focus();
  }

  function leave() {
    if (step < 0) return;
    step = -1;
    $("x-tour").hidden = true;
    $("x-start").hidden = false;
  }

  // ---- Listening --------------------------------------------------------------------------------

  $("explorer").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    const { position, input, label, all, take, guess: number } = button?.dataset ?? {};
    if (button) note("");
    if (position !== undefined) select(Number(position));
    if (input) setInput(input);
    const chosen = { ignore: IGNORE, original: originals()[state.selected], mask: MASK };
    if (label) setLabel(chosen[label]);
    if (take !== undefined) {
      setLabel(Number(take));
      document.querySelector(`[data-take="${take}"]`)?.focus();
    }
    if (all) setAll(all);
    if (number !== undefined) guess(Number(number));
  });
  $("x-table").addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    if (!(event.key in moves) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    select(state.selected + moves[event.key]);
  });
  $("x-tour").addEventListener("keydown", (event) => {
    if (!guessed && steps[step].choices[event.key - 1] !== undefined) guess(event.key - 1);
  });
  $("x-word").addEventListener("submit", (event) => {
    event.preventDefault();
    setWord($("x-other").value.trim());
  });
  $("x-text").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(typed, WAIT);
  });
  $("x-padding").addEventListener("input", () => {
    const wanted = Number.parseInt($("x-padding").value, 10) || 0;
    state.padding = Math.min(Math.max(wanted, 0), MOST_PADDING);
    state.selected = Math.min(state.selected, originals().length - 1);
    note("");
    run();
  });
  $("x-padding").addEventListener("change", () => { $("x-padding").value = state.padding; });
  $("x-case").addEventListener("change", () => {
    leave();
    note("");
    if ($("x-case").value) open(presets.get($("x-case").value));
  });
  $("x-load").addEventListener("click", () => model().then(() => {
    const waiting = state.answer ? null : stateOf(location.hash);
    return waiting ? open(waiting) : show();
  }, show));
  $("x-copy").addEventListener("click", copy);
  $("x-start").addEventListener("click", () => go(0));
  $("x-next").addEventListener("click", () => go(step + 1));
  $("x-leave").addEventListener("click", () => { leave(); show(); $("x-start").focus(); });
  addEventListener("hashchange", () => {
    leave();
    note("");
    if (stateOf(location.hash)) openAndShow();
  });
  addEventListener("resize", show);
  document.querySelectorAll(".x-open").forEach((element) => {
    element.hidden = false;
    element.addEventListener("click", async (event) => {
      event.preventDefault(); // or the page would go to the section of the case
      leave();
      history.pushState(null, "", event.target.hash);
      await openAndShow();
      $("x-case").focus();
    });
  });

  const first = presets.keys().next().value;

  /** Open what the address names; where that needs the model, say so instead of loading it. */
  async function openAndShow() {
    const fragment = stateOf(location.hash);
    const scroll = () => fragment && $("explorer").scrollIntoView();
    if (document.readyState !== "complete") addEventListener("load", scroll);
    const { text } = fromFragment(fragment ?? "");
    if (!fragment || texts.has(text) || loading) {
      await open(fragment ?? presets.get(first));
    } else {
      $("x-text").value = text;
      note("This link holds a sentence of its own. Load the model to see it.");
      $("explorer").setAttribute("aria-busy", "false");
    }
    scroll();
  }

  $("x-static").hidden = true;
  $("x-live").hidden = false;
  if ($("explorer").dataset.missing) $("x-model").textContent = $("explorer").dataset.missing;
  openAndShow();
}

if (document.getElementById("x-presets")) startPage();

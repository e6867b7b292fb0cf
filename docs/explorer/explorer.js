// The explorer: BERT in the page. Click a token, choose what the model reads there and what its
// label is, and see what is scored.
//
// `state` is the one object; whatever is shown is computed from it. This file is the module of the
// page, and, where there is no document, the worker that runs the model: a forward pass takes a
// fraction of a second, and in a worker it does not hold up the page.

export const IGNORE = -100;
const [PAD, CLS, SEP, MASK] = [0, 101, 102, 103];
const LONGEST = 128; // tokens; the model reads up to 512, and takes longer for it
const WAIT = 300; // milliseconds without a key before a typed sentence is read

// ---- The arithmetic: what mlmtutor.masked_lm_loss does --------------------------------------

/** -log p(label) from one row of logits: log-softmax, then the entry of the label. */
export function surprise(row, label) {
  if (!(label >= 0 && label < row.length)) throw new RangeError(`${label} is no id`);
  const largest = row.reduce((a, b) => Math.max(a, b), -Infinity);
  let sum = 0;
  for (const logit of row) sum += Math.exp(logit - largest);
  return Math.log(sum) - (row[label] - largest);
}

/** The loss at each position, NaN where nothing is scored, and the mean over what is. */
export function maskedLmLoss(logits, labels) {
  const size = logits.length / labels.length;
  const each = labels.map((label, i) =>
    label === IGNORE ? NaN : surprise(logits.subarray(i * size, (i + 1) * size), label));
  const kept = each.filter((_, i) => labels[i] !== IGNORE);
  return { each, scored: kept.length, mean: kept.reduce((a, b) => a + b, 0) / kept.length };
}

/** The k largest entries of one row of logits, as {id, p}. */
export function mostProbable(row, k = 5) {
  const best = [];
  row.forEach((logit, id) => {
    if (best.length === k && logit <= best[k - 1].logit) return;
    best.push({ id, logit });
    best.sort((a, b) => b.logit - a.logit);
    best.length = Math.min(best.length, k);
  });
  return best.map(({ id }) => ({ id, p: Math.exp(-surprise(row, id)) }));
}

// ---- The state, and what follows from it ----------------------------------------------------

const state = {
  text: "", // as typed
  tokens: [], // its ids, [CLS] and [SEP] included
  padding: 0, // how many [PAD] stand behind them
  replacements: {}, // position -> id that the model reads in place of the token
  labels: {}, // position -> id; a position that is not here has the label -100
  selected: 0,
  logits: null, // of what the model reads now; null until it has answered
};

const originals = () => [...state.tokens, ...Array(state.padding).fill(PAD)];
const inputIds = () => originals().map((id, i) => state.replacements[i] ?? id);
const labelIds = () => originals().map((_, i) => state.labels[i] ?? IGNORE);
const attention = () => originals().map((_, i) => Number(i < state.tokens.length));
const logitsAt = (i) => {
  const size = state.logits.length / originals().length;
  return state.logits.subarray(i * size, (i + 1) * size);
};

/** The state as the part of the address after #, and back. */
function toFragment() {
  const pairs = (ids) => Object.entries(ids).map(([i, id]) => `${i}:${id}`).join(",");
  const parts = { text: state.text, padding: state.padding, at: state.selected,
    input: pairs(state.replacements), labels: pairs(state.labels) };
  return String(new URLSearchParams(parts)).replaceAll("%3A", ":").replaceAll("%2C", ",");
}

function fromFragment(fragment) {
  const parts = new URLSearchParams(fragment);
  const number = (name) => Number.parseInt(parts.get(name), 10) || 0;
  const pairs = (name) => Object.fromEntries((parts.get(name) ?? "").split(",")
    .filter((pair) => /^\d+:\d+$/.test(pair)).map((pair) => pair.split(":").map(Number)));
  const replacements = pairs("input");
  const selected = parts.has("at") ? number("at") : Number(Object.keys(replacements)[0] ?? 0);
  return { text: parts.get("text") ?? "", padding: Math.min(Math.max(number("padding"), 0), 32),
    replacements, labels: pairs("labels"), selected };
}

// ---- The worker: tokenizer and model ---------------------------------------------------------

function startWorker() {
  let tokenizer, model, transformers;
  const tasks = {
    async load({ folder }) {
      const here = new URL(".", import.meta.url).pathname; // a whole URL would count as remote
      let loaded = 0;
      // Every file comes through this, so that the progress bar knows.
      const counting = async (url, options) => {
        const response = await fetch(url, options);
        if (!response.ok || !response.body) return response;
        const count = new TransformStream({ transform(chunk, controller) {
          loaded += chunk.byteLength;
          postMessage({ loaded });
          controller.enqueue(chunk);
        } });
        return new Response(response.body.pipeThrough(count), response);
      };
      transformers = await import("./transformers.min.js");
      const { env, AutoTokenizer, AutoModelForMaskedLM } = transformers;
      Object.assign(env, { allowRemoteModels: false, allowLocalModels: true, localModelPath: here,
        useBrowserCache: false, useWasmCache: false, fetch: counting });
      const { wasm } = env.backends.onnx;
      const runtime = `${location.origin}${here}ort-wasm-simd-threaded`;
      Object.assign(wasm, { numThreads: 1, wasmPaths: { mjs: `${runtime}.mjs` } });
      wasm.wasmBinary = await (await counting(`${runtime}.wasm`)).arrayBuffer();
      tokenizer = await AutoTokenizer.from_pretrained(folder);
      // More than basic optimisation takes longer to load, and no forward pass is faster for it.
      model = await AutoModelForMaskedLM.from_pretrained(folder,
        { device: "wasm", dtype: "q8", session_options: { graphOptimizationLevel: "basic" } });
      return [...tokenizer.get_vocab()]; // pairs of token and id
    },
    encode: ({ text, special }) => tokenizer.encode(text, { add_special_tokens: special }),
    async forward({ ids, mask }) {
      const tensor = (values) =>
        new transformers.Tensor("int64", values.map(BigInt), [1, values.length]);
      const output = await model({ input_ids: tensor(ids), attention_mask: tensor(mask) });
      return output.logits.data;
    },
  };
  onmessage = async ({ data: { number, task, argument } }) => {
    try {
      const result = await tasks[task](argument);
      postMessage({ number, result }, result.buffer ? [result.buffer] : []);
    } catch (error) {
      postMessage({ number, error: String(error.message ?? error) });
    }
  };
}

// ---- The page ----------------------------------------------------------------------------------

function startPage() {
  const $ = (id) => document.getElementById(id);
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const presets = new Map(Object.entries(JSON.parse($("x-presets").textContent)));
  const vocabulary = []; // id -> token; empty until the model is loaded
  let worker, typing;
  let running = false, again = false;
  const asked = []; // what the worker was asked: how to go on with its answers

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

  async function load() {
    $("x-load").hidden = true;
    $("x-loading").hidden = false;
    $("x-problem").textContent = "";
    worker?.terminate(); // of an attempt that failed
    worker = new Worker(import.meta.url, { type: "module" });
    worker.onmessage = hear;
    worker.onerror = (event) => failed(new Error(event.message || "the worker did not start"));
    try {
      const pairs = await ask("load", { folder: $("explorer").dataset.model });
      for (const [token, id] of pairs) vocabulary[id] = token;
    } catch (error) {
      return failed(error);
    }
    $("x-start").hidden = true;
    $("x-live").hidden = false;
    await open(stateOf(location.hash) ? location.hash : `#${presets.keys().next().value}`);
    $("x-case").focus();
  }

  function failed(error) {
    $("x-loading").hidden = true;
    $("x-load").hidden = false;
    $("x-problem").textContent = `The model could not be loaded: ${error.message}`;
  }

  /** The state that the address names: a preset by its id, or one that is written out. */
  function stateOf(hash) {
    const named = hash.slice(1);
    return presets.get(named) ?? (named.startsWith("text=") ? named : undefined);
  }

  async function open(hash) {
    const id = presets.has(hash.slice(1)) ? hash.slice(1) : "";
    const told = document.getElementById(id)?.closest("section").querySelector("p");
    $("x-case").value = id;
    $("x-see").replaceChildren(...(told?.cloneNode(true).childNodes ?? []));
    const { text, padding, replacements, labels, selected } = fromFragment(stateOf(hash));
    await read(text);
    const length = state.tokens.length + padding;
    const known = (pairs) => Object.fromEntries(
      Object.entries(pairs).filter(([i, id]) => i < length && id < vocabulary.length));
    Object.assign(state, { padding, replacements: known(replacements), labels: known(labels),
      selected: Math.max(0, Math.min(selected, length - 1)) });
    $("x-text").value = text;
    $("x-padding").value = padding;
    await run();
  }

  /** Read a sentence. What was chosen stays where the token has stayed. */
  async function read(text) {
    const before = state.tokens;
    const all = await ask("encode", { text, special: true });
    const cut = all.length > LONGEST;
    const tokens = cut ? [...all.slice(0, LONGEST - 1), SEP] : all;
    const kept = (pairs) => Object.fromEntries(
      Object.entries(pairs).filter(([i]) => i < tokens.length && tokens[i] === before[i]));
    Object.assign(state, { text, tokens, logits: null, replacements: kept(state.replacements),
      labels: kept(state.labels), selected: Math.min(state.selected, tokens.length - 1) });
    $("x-note").textContent = cut
      ? `The sentence has ${all.length} tokens; the first ${LONGEST - 1} and [SEP] are read.` : "";
  }

  /** Let the model read what the state says, and show the answer; the newest request wins. */
  async function run() {
    state.logits = null;
    show();
    again = running;
    if (running) return;
    running = true;
    try {
      do {
        again = false;
        const logits = await ask("forward", { ids: inputIds(), mask: attention() });
        if (!again) state.logits = logits;
      } while (again);
    } catch (error) {
      $("x-note").textContent = `The model did not answer: ${error.message}`;
    }
    running = false;
    show();
  }

  const name = (id) => vocabulary[id] ?? "(no token)";
  const fixed = (number) => (Number.isNaN(number) ? "nan" : number.toFixed(2));
  const probability = (p) => (p < 0.001 ? p.toExponential(1) : p.toFixed(3));

  function show() {
    const loss = state.logits && maskedLmLoss(state.logits, labelIds());
    showTable(loss);
    showPanel();
    $("x-result").textContent = summary(loss);
    $("explorer").setAttribute("aria-busy", String(!state.logits));
    if (state.logits) history.replaceState(null, "", `#${toFragment()}`);
  }

  function summary(loss) {
    if (!loss) return "Computing …";
    const places = labelIds().flatMap((label, i) => (label === IGNORE ? [] : [i]));
    const some = places.length && places.length <= 6;
    const one = loss.scored === 1;
    const where = some ? ` (${one ? "position" : "positions"} ${places.join(", ")})` : "";
    return `${loss.scored} of ${originals().length} positions ${one ? "is" : "are"} scored (✓). `
      + `loss = mean of ${loss.scored} ${one ? "value" : "values"}${where} = ${fixed(loss.mean)}`;
  }

  /** The rows of the table: the name of the row, and for each position a text and a style. */
  function rows(loss) {
    const [inputs, labels, before] = [inputIds(), labelIds(), originals()];
    const scored = (i) => labels[i] !== IGNORE;
    const value = (i, number) => (!scored(i) ? "" : loss ? number(loss.each[i]) : "…");
    const each = (cell) => inputs.map((_, i) => cell(i));
    const replaced = (i) =>
      inputs[i] === MASK || inputs[i] !== before[i] || (scored(i) && labels[i] !== inputs[i]);
    return [
      ["position", each((i) => [String(i), "muted"])],
      ["token", each((i) => [name(inputs[i]),
        replaced(i) ? "replaced" : [PAD, CLS, SEP].includes(inputs[i]) ? "special" : ""])],
      ["input_ids", each((i) => [String(inputs[i]), ""])],
      ...(state.padding ? [["attention_mask", each((i) => [String(attention()[i]), ""])]] : []),
      ["labels", each((i) => [String(labels[i]), scored(i) ? "scored" : "muted"])],
      ["scored", each((i) => (scored(i) ? [`✓ ${name(labels[i])}`, "strong"] : ["·", "muted"]))],
      ["p(label)", each((i) => [value(i, (nats) => probability(Math.exp(-nats))), ""])],
      ["−log p(label)", each((i) => [value(i, fixed), "strong"])],
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
      const caption = make("caption", { textContent: `positions ${start} to ${stop - 1}` });
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
      room -= Math.max(longest * letter + 16, 50);
      if (room >= 0 || stop === start) stop += 1;
    }
    return stop;
  }

  const token = (i) => $("x-table").querySelector(`[data-position="${i}"]`);

  function cell(title, [text, style], i) {
    const chosen = i === state.selected ? " x-chosen" : "";
    const element = make(title === "position" ? "th" : "td", { className: style + chosen });
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
    };
    press("input", "itself", now === before, `itself: ${name(before)}`);
    press("input", "mask", now === MASK);
    press("input", "random", now !== before && now !== MASK);
    press("label", "ignore", label === IGNORE);
    press("label", "original", label === before, `the original: ${name(before)}, ${before}`);
    press("label", "mask", label === MASK);
    const best = state.logits ? mostProbable(logitsAt(i)) : [];
    $("x-top").tBodies[0].replaceChildren(...best.map(({ id, p }) => {
      const button = make("button", { type: "button", textContent: name(id) });
      button.dataset.take = id;
      button.setAttribute("aria-pressed", String(id === label));
      button.setAttribute("aria-label", `${name(id)}: take it as the label`);
      return make("tr", {}, make("th", { scope: "row" }, button), make("td", { textContent: id }),
        make("td", { textContent: probability(p) }));
    }));
  }

  // ---- What a reader does -----------------------------------------------------------------------

  function setInput(choice) {
    const i = state.selected;
    const ordinary = () => {
      for (;;) {
        const id = Math.floor(Math.random() * vocabulary.length);
        if (!name(id).startsWith("[")) return id; // neither special nor unused
      }
    };
    if (choice === "itself") delete state.replacements[i];
    else state.replacements[i] = choice === "mask" ? MASK : ordinary();
    run();
  }

  function setLabel(id) {
    if (id === IGNORE) delete state.labels[state.selected];
    else state.labels[state.selected] = id;
    $("x-note").textContent = "";
    show();
  }

  async function setWord(word) {
    const pieces = await ask("encode", { text: word, special: false });
    if (pieces.length === 1) return setLabel(pieces[0]);
    const said = `“${word}” is ${pieces.length} tokens: ${pieces.map(name).join(" ")}.`;
    $("x-note").textContent = pieces.length ? `${said} A label is one of them.` : "Type a word.";
  }

  function setAll(what) {
    const [before, inputs] = [originals(), inputIds()];
    const wanted = { nothing: () => false, inputs: () => true,
      replaced: (i) => inputs[i] !== before[i] };
    const source = what === "inputs" ? inputs : before;
    state.labels = Object.fromEntries([...source.entries()].filter(([i]) => wanted[what](i)));
    show();
  }

  function select(i) {
    state.selected = Math.max(0, Math.min(i, originals().length - 1));
    show();
  }

  $("explorer").addEventListener("click", (event) => {
    const { position, input, label, all, take } = event.target.closest("button")?.dataset ?? {};
    if (position !== undefined) select(Number(position));
    if (input) setInput(input);
    const chosen = { ignore: IGNORE, original: originals()[state.selected], mask: MASK };
    if (label) setLabel(chosen[label]);
    if (take !== undefined) {
      setLabel(Number(take));
      document.querySelector(`[data-take="${take}"]`).focus();
    }
    if (all) setAll(all);
  });
  $("x-table").addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    select(state.selected + steps[event.key]);
  });
  $("x-word").addEventListener("submit", (event) => {
    event.preventDefault();
    setWord($("x-other").value.trim());
  });
  $("x-text").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => read($("x-text").value).then(run), WAIT);
  });
  $("x-padding").addEventListener("input", () => {
    state.padding = Math.min(Math.max(Number.parseInt($("x-padding").value, 10) || 0, 0), 32);
    state.selected = Math.min(state.selected, originals().length - 1);
    run();
  });
  addEventListener("hashchange", () => {
    if (vocabulary.length && stateOf(location.hash)) open(location.hash);
  });
  $("x-case").addEventListener("change", () => $("x-case").value && open(`#${$("x-case").value}`));
  addEventListener("resize", () => vocabulary.length && show());
  document.querySelectorAll(".x-open").forEach((element) => {
    element.hidden = false;
    element.addEventListener("click", (event) => {
      event.preventDefault(); // or the page would go to the section of the case
      history.pushState(null, "", event.target.hash);
      if (vocabulary.length) open(event.target.hash);
      (vocabulary.length ? $("x-case") : $("x-load")).focus();
    });
  });
  $("x-why").hidden = true;
  $("x-load").hidden = false;
  $("x-load").addEventListener("click", load);
}

if (typeof document === "undefined") startWorker();
else if (document.getElementById("x-presets")) startPage();

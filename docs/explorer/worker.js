// The worker of the explorer: tokenizer and model. A forward pass takes a fraction of a second, and
// in a worker it doesn't hold up the page.

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

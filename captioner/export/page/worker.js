// The model works beside the page, which would freeze while it computes. One picture at a time.

import { Captioner } from "./captioner.js";

const model = Captioner.load();
let last = model;

model.then(
  ({ settings }) => postMessage({ ready: true, language: settings.language }),
  (error) => postMessage({ failed: error.message }),
);

onmessage = ({ data: { id, file, shown } }) => {
  last = last.catch(() => {}).then(async () => {
    try {
      const start = performance.now(), caption = await (await model).caption(file, shown);
      postMessage({ id, caption, seconds: (performance.now() - start) / 1000 });
    } catch (error) {
      postMessage({ id, error: error.message });
    }
  });
};

/* A click on an example tells the server which one. Body of gr.HTML's js_on_load. */
element.addEventListener("click", (event) => {
  const chosen = event.target.closest("button[data-index]");
  if (chosen) trigger("select", { index: Number(chosen.dataset.index) });
});

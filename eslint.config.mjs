// Rules for the page's scripts: mistakes and dead code, no taste.
const browser = [
  "document", "window", "location", "history", "navigator", "performance", "fetch", "WebSocket", "EventSource", "URL",
  "Blob", "Response", "Image", "Option", "ResizeObserver", "CompressionStream", "DecompressionStream", "TextEncoder",
  "TextDecoder", "createImageBitmap", "requestAnimationFrame", "getComputedStyle", "setInterval", "clearInterval",
  "setTimeout", "atob", "btoa", "console", "File", "matchMedia", "addEventListener",
];

export default [
  {
    files: ["**/*.js", "**/*.mjs"],
    languageOptions: { ecmaVersion: 2022, sourceType: "module", globals: Object.fromEntries(browser.map((name) => [name, "readonly"])) },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      "no-undef": "error",
      "no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
      "no-const-assign": "error",
      "no-dupe-keys": "error",
      "no-dupe-class-members": "error",
      "no-unreachable": "error",
      "no-fallthrough": "error",
      "no-self-compare": "error",
      "no-var": "error",
      "prefer-const": "error",
      "eqeqeq": "error",
      "no-eval": "error",
      "no-implied-eval": "error",
      "no-shadow": "error",
      "no-use-before-define": ["error", { functions: false, classes: false }],
      "consistent-return": "off",
      "valid-typeof": "error",
    },
  },
];

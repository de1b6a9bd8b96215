import assert from "node:assert/strict";
import { test } from "node:test";

import { forceOf, scaleText } from "../../../app_assets/web/canvas.js";
import { describe } from "../../../app_assets/web/panel.js";

test("pressure counts where it is measured: a pen's, not a mouse's, not a screen's guess", () => {
  const force = (pointerType, pressure) => forceOf({ pointerType, pressure });
  assert.deepEqual([force("mouse", 0.5), force("touch", 0), force("touch", 0.5), force("pen", 0.3), force("pen", 1.4)], [1, 1, 1, 0.3, 1]);
});

test("tracks are described by what a person wants to know", () => {
  const points = [{ f: 0, x: 0, y: 0 }, { f: 16, x: 0.5, y: 0 }];
  assert.equal(describe({ points }, 2, 16), "2. path, 2 points, frames 0 to 16, 50 %/s");
  assert.equal(describe({ points: points.slice(1) }, 3, 16), "3. pin");
});

test("a video that is shown more than four times as large says how small it is", () => {
  const picture = { width: 96, height: 160 };
  assert.match(scaleText(picture, 480), /^160-pixel model, shown 5\.0 times as large\. .*larger ones need a GPU/);
  assert.deepEqual([scaleText(picture, 384), scaleText(null, 900)], ["", ""]);
});

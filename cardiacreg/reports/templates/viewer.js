// Controls beside the view: opacity, clipping, camera and frame, by mouse or keyboard.
(function () {
  "use strict";
  const panel = document.getElementById("viewer");
  if (!panel) { return; }
  const settings = JSON.parse(panel.dataset.settings);
  const view = document.getElementById("view");
  const state = document.getElementById("view-state");
  const all = (selector) => Array.from(panel.querySelectorAll(selector));
  let instance = null;

  function ready(found) {
    instance = found;
    state.textContent = "Turn with the mouse, zoom with the wheel.";
    panel.dataset.ready = "yes";
    cut();
  }

  function wait() {
    const inside = view.contentWindow;
    if (inside && inside.K3DInstance && inside.K3DInstance.then) {
      inside.K3DInstance.then(ready, function () {
        state.textContent = "This browser cannot draw in three dimensions (no WebGL); see the pictures above.";
      });
      return;
    }
    window.setTimeout(wait, 200);
  }

  function opacity(input) {
    if (!instance) { return; }
    const json = instance.getWorld().ObjectsListJson[input.dataset.layer];
    const value = Number(input.value);
    json.opacity = value;
    json.visible = value > 0;
    instance.reload(json, { opacity: value, visible: value > 0 });
    instance.render();
  }

  function cut() {
    if (!instance) { return; }
    const plane = settings.planes[document.getElementById("plane").value];
    const share = Number(document.getElementById("level").value);
    const planes = [];
    if (plane) {
      const level = plane.high - share * (plane.high - plane.low);
      planes.push([-plane.normal[0], -plane.normal[1], -plane.normal[2], level]);
    }
    instance.setClippingPlanes(planes);
    instance.render();
  }

  function show(number) {
    const slider = document.getElementById("frame");
    slider.value = number;
    document.getElementById("frame-title").textContent = settings.frames[number];
    slider.setAttribute("aria-valuetext", settings.frames[number]);
    if (instance) { instance.setTime(Number(number)); }
  }

  all("[data-camera]").forEach(function (button) {
    button.addEventListener("click", function () {
      if (instance) { instance.setCamera(settings.cameras[button.dataset.camera]); instance.render(); }
    });
  });
  all("[data-layer]").forEach(function (input) {
    input.addEventListener("input", function () { opacity(input); });
  });
  document.getElementById("plane").addEventListener("change", cut);
  document.getElementById("level").addEventListener("input", cut);

  const slider = document.getElementById("frame");
  if (slider) {
    const play = document.getElementById("play");
    let timer = null;
    slider.addEventListener("input", function () { show(slider.value); });
    play.addEventListener("click", function () {
      if (timer) { window.clearInterval(timer); timer = null; } else {
        timer = window.setInterval(function () {
          show((Number(slider.value) + 1) % settings.frames.length);
        }, Math.max(80, 1600 / settings.frames.length));
      }
      play.textContent = timer ? "Pause" : "Play";
      play.setAttribute("aria-pressed", String(Boolean(timer)));
    });
  }
  wait();
})();

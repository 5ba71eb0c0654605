// Draws one molecule on a canvas and turns it by mouse, touch or arrow keys. No library, no network.
// `root` holds a <canvas>, a still picture (.still) that it replaces, and, where there are several
// frames, a slider (input), a button and a label (output). `data`: see molecule_view.py.
(function (root, data) {
  const canvas = root.querySelector("canvas"), still = root.querySelector(".still");
  const slider = root.querySelector("input"), button = root.querySelector("button");
  const label = root.querySelector("output"), pen = canvas.getContext("2d");
  if (!pen) return;
  still.style.display = "none";
  canvas.style.display = "block";
  const sharp = window.devicePixelRatio || 1, start = data.rotation;
  canvas.width = data.width * sharp;
  canvas.height = data.height * sharp;
  let rotation = start.map((row) => row.slice()), frame = 0, zoom = 1, timer = null;

  function product(a, b) {
    return a.map((row) => [0, 1, 2].map((k) => row[0] * b[0][k] + row[1] * b[1][k] + row[2] * b[2][k]));
  }

  function turn(dx, dy) { // radians about the screen's axes
    const [c, s, d, t] = [Math.cos(dx), Math.sin(dx), Math.cos(dy), Math.sin(dy)];
    const about_y = [[c, 0, s], [0, 1, 0], [-s, 0, c]], about_x = [[1, 0, 0], [0, d, t], [0, -t, d]];
    rotation = product(about_x, product(about_y, rotation));
  }

  function mixed(color, other, share) {
    return "rgb(" + color.map((c, k) => Math.round(c + share * (other[k] - c))).join(",") + ")";
  }

  function draw() {
    const scale = data.scale * zoom * sharp;
    const turned = data.frames[frame].map(([x, y, z]) => rotation.map((row) => row[0] * x + row[1] * y + row[2] * z));
    function seen([u, v, w]) {
      const near = 1 / (1 - w / data.distance); // perspective: the viewer stands on the z axis
      return { x: canvas.width / 2 + scale * u * near, y: canvas.height / 2 - scale * v * near, z: w, near };
    }
    function surface(i, j) { // where the bond to j leaves atom i
      const way = turned[j].map((end, k) => end - turned[i][k]);
      const share = 0.9 * data.radii[i] / Math.hypot(...way);
      return seen(turned[i].map((begin, k) => begin + share * way[k]));
    }
    const points = turned.map(seen);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    const parts = points.map((p, i) => ({ z: p.z, paint: () => atom(p, i, scale) }));
    for (const [i, j, strength] of data.bonds[frame]) {
      const [p, q] = [surface(i, j), surface(j, i)];
      parts.push({ z: (points[i].z + points[j].z) / 2, paint: () => bond(p, q, i, j, strength, scale) });
    }
    parts.sort((a, b) => a.z - b.z).forEach((part) => part.paint());
    if (label) label.textContent = data.labels[frame];
    if (slider) slider.value = frame;
  }

  function atom(p, i, scale) {
    const radius = data.radii[i] * scale * p.near, color = data.colors[i];
    const light = pen.createRadialGradient(p.x - 0.35 * radius, p.y - 0.4 * radius, 0.1 * radius, p.x, p.y, radius);
    light.addColorStop(0, mixed(color, [255, 255, 255], 0.75));
    light.addColorStop(0.45, mixed(color, [255, 255, 255], 0.1));
    light.addColorStop(1, mixed(color, [0, 0, 0], 0.45));
    pen.beginPath();
    pen.arc(p.x, p.y, radius, 0, 2 * Math.PI);
    pen.fillStyle = light;
    pen.fill();
    pen.lineWidth = 0.8 * sharp;
    pen.strokeStyle = "rgba(40,40,40,0.6)";
    pen.stroke();
  }

  function bond(p, q, i, j, strength, scale) {
    const width = 0.2 * scale * (p.near + q.near) / 2 * (0.45 + 0.55 * strength);
    const middle = { x: (p.x + q.x) / 2, y: (p.y + q.y) / 2 };
    pen.lineCap = "butt";
    pen.setLineDash(strength < 0.999 ? [0.16 * scale, 0.12 * scale] : []);
    for (const [end, k] of [[p, i], [q, j]]) {
      for (const [share, edge, other] of [[1, 0.5, [0, 0, 0]], [0.55, 0.12, [255, 255, 255]]]) {
        pen.beginPath();
        pen.moveTo(end.x, end.y);
        pen.lineTo(middle.x, middle.y);
        pen.lineWidth = width * share;
        pen.strokeStyle = mixed(data.colors[k], other, edge);
        pen.stroke();
      }
    }
    pen.setLineDash([]);
  }

  let held = null;
  canvas.addEventListener("pointerdown", (event) => {
    held = [event.clientX, event.clientY];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!held) return;
    turn((event.clientX - held[0]) * 0.01, (event.clientY - held[1]) * 0.01);
    held = [event.clientX, event.clientY];
    draw();
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { held = null; });
  canvas.addEventListener("dblclick", () => {
    rotation = start.map((row) => row.slice());
    zoom = 1;
    draw();
  });
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
    if (steps[event.key]) turn(...steps[event.key]);
    else if (event.key === "+") zoom *= 1.1;
    else if (event.key === "-") zoom /= 1.1;
    else return;
    event.preventDefault();
    draw();
  });
  function show(next) {
    frame = next;
    draw();
  }
  function pause() {
    clearInterval(timer);
    timer = null;
    button.textContent = "▶";
  }
  if (slider) {
    slider.addEventListener("input", () => { pause(); show(Number(slider.value)); });
    button.addEventListener("click", () => {
      if (timer) return pause();
      button.textContent = "❚❚";
      timer = setInterval(() => show((frame + 1) % data.frames.length), data.pause);
    });
  }
  draw();
})

// A worker that ticks: unlike the page's own timers it is not slowed down in a background
// tab, so a test picture goes on moving there.
let timer;
self.onmessage = ({ data: hz }) => {
  clearInterval(timer);
  timer = setInterval(() => self.postMessage(0), 1000 / hz);
};

const root = document.documentElement;
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const button = document.getElementById("theme");
function show(theme) {
  root.dataset.theme = theme;
  button.textContent = theme === "dark" ? "Light" : "Dark";
}
show(dark.matches ? "dark" : "light");
dark.addEventListener("change", (event) => show(event.matches ? "dark" : "light"));
button.addEventListener("click", () => show(root.dataset.theme === "dark" ? "light" : "dark"));

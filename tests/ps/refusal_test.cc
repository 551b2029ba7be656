// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Workers and servers that cannot be in the job, and what they are told: one line, with what is
// wrong. The job goes on without them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <future>
#include <string>

#include "tests/ps/job.h"
#include "tests/ps/training.h"
#include "tests/support/error_text.h"

namespace trireme::ps {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using trireme::testing::failure_of;

// What a process that comes as this worker with mixed_layout(), but for a change, is told.
std::string refusal(
    const WorkerOptions& options, const std::function<void(JobLayout&)>& change = [](auto&) {}) {
  JobLayout layout = mixed_layout();
  change(layout);
  std::string text = failure_of([&] { Worker worker(options, layout); });
  EXPECT_THAT(text, AllOf(StartsWith("ConfigError: "), Not(HasSubstr("\n"))));
  return text;
}

// Others come in the place of a worker that is gone, and then one that may.
TEST(RefusedWorkers, AreToldWhatIsWrongAndDisturbNobody) {
  Job job({.servers = 1, .workers = 2});
  auto workers = job.join(mixed_layout());
  begin(*workers[0]);
  workers[1].reset();
  ASSERT_TRUE(job.await_workers(1));
  const WorkerOptions second = job.worker_options(1);

  const std::string other_layout =
      "worker 1 lays out its parameters in another way than the job does (ours, the job's): ";
  const auto differs = [&](const std::function<void(JobLayout&)>& change) {
    const std::string text = refusal(second, change);
    EXPECT_THAT(text, HasSubstr(other_layout));
    return text;
  };
  EXPECT_THAT(differs([](auto& l) { l.consistency = Consistency::async(); }),
              HasSubstr("consistency async and sync"));
  EXPECT_THAT(differs([](auto& l) { l.dense.optimizer.name = "sgd"; }),
              HasSubstr("optimizer sgd and adamw"));
  EXPECT_THAT(differs([](auto& l) { l.dense.parameters[0].entry.name = "first"; }),
              AllOf(HasSubstr("'first'"), HasSubstr("'embedding'")));
  EXPECT_THAT(differs([](auto& l) { l.sparse.tables[1].width = 9; }),
              HasSubstr("'items' of width 9 and 'items' of width 8"));
  EXPECT_THAT(differs([](auto& l) { l.sparse.seed = 3; }), HasSubstr("seed of tables 3 and 17"));
  EXPECT_THAT(differs([](auto& l) { l.settings = "batch 7"; }),
              HasSubstr("settings 'batch 7' and ''"));
  EXPECT_THAT(refusal(job.worker_options(2)), HasSubstr("worker 2 cannot join"));
  EXPECT_THAT(refusal(job.worker_options(-1)),
              AllOf(HasSubstr("worker -1 cannot join"), HasSubstr("the job has 2 of them")));
  EXPECT_TRUE(job.await_workers(1));

  Worker worker(second, mixed_layout());
  auto values = std::async(std::launch::async, [&] { return train(worker, {.steps = 4}); });
  const Values own = train(*workers[0], {.steps = 4});
  EXPECT_TRUE(values.get() == own);
}

// What can be seen before anyone is asked: there is no coordinator here.
TEST(RefusedWorkers, AreToldBeforeTheyConnect) {
  WorkerOptions options{.coordinator_port = 1, .join_timeout = std::chrono::milliseconds(1)};
  for (const std::string codec : {"gzip", "topk(2)"}) {
    options.codec = codec;
    EXPECT_THAT(refusal(options),
                AllOf(HasSubstr("codec '" + codec + "'"), HasSubstr("bf16, int8, or topk(f)")));
  }
  options.codec = "";
  EXPECT_THAT(refusal(options, [](auto& l) { l.dense.optimizer.name = "sdg"; }),
              HasSubstr("'sdg'"));
  for (const std::string name : {"lamb", "muon", "adafactor"}) {
    EXPECT_THAT(refusal(options, [&](auto& l) { l.sparse.tables[0].optimizer.name = name; }),
                AllOf(HasSubstr("'users'"), HasSubstr(name),
                      HasSubstr("take sgd, adagrad, adam, adamw or lion")));
  }
  EXPECT_THAT(refusal(options, [](auto& l) { l.sparse.tables[1].optimizer.name = "sdg"; }),
              AllOf(HasSubstr("'items'"), HasSubstr("sdg")));
  EXPECT_THAT(refusal(options, [](auto& l) { l.sparse.slices = -1; }), HasSubstr("-1 slices"));
  EXPECT_THAT(refusal(options, [](auto& l) { l.range_bytes = 100; }), HasSubstr("of 100 bytes"));
  EXPECT_THAT(refusal(options, [](auto& l) { l.dense.size += 1; }), HasSubstr("45057"));
  EXPECT_THAT(refusal(options, [](auto& l) { l = {}; }), HasSubstr("without dense parameters"));
  EXPECT_THAT(refusal(options,
                      [](auto& l) {
                        l.two_phases = true;
                        l.consistency = Consistency::bounded(2);
                      }),
              HasSubstr("sync only, not bounded(2)"));
}

TEST(RefusedWorkers, ConsistencyIsOneOfThree) {
  for (const std::string text : {"", "strict", "Sync", "bounded", "bounded()", "bounded(-1)",
                                 "bounded(2", "bounded(2.5)", "bounded(99999999999999999999)"}) {
    EXPECT_THAT(failure_of([&] { Consistency::parse(text); }),
                AllOf(StartsWith("ConfigError: consistency '" + text + "' is none"),
                      HasSubstr("sync, async, or bounded(k)"), Not(HasSubstr("\n"))));
  }
  EXPECT_EQ(Consistency::parse("bounded(7)"), Consistency::bounded(7));
}

TEST(RefusedServers, AreToldTheirNumberIsNone) {
  Job job({.servers = 2, .workers = 1});
  for (const int index : {-1, 2}) {
    EXPECT_THAT(failure_of([&] {
                  Server server({.coordinator_port = job.coordinator().port(), .index = index});
                }),
                AllOf(StartsWith("ConfigError: server " + std::to_string(index) + " cannot join"),
                      HasSubstr("the job has 2 of them"), Not(HasSubstr("\n"))));
  }
  job.run(mixed_layout(), [](Worker& worker) {
    begin(worker);
    train(worker, {.steps = 1});
  });
}

}  // namespace
}  // namespace trireme::ps

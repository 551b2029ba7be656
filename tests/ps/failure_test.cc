// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Servers and workers that are lost and come back, in one process: connections break as those of a
// process that is killed. What is lost must not be seen in the values: they are those of a run
// without losses, bit for bit.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <future>
#include <map>
#include <mutex>
#include <optional>
#include <ostream>
#include <random>
#include <thread>
#include <tuple>
#include <vector>

#include "tests/ps/job.h"
#include "tests/ps/training.h"
#include "trireme/base/error.h"
#include "trireme/comm/rpc/client.h"
#include "trireme/ps/messages.h"

namespace trireme::ps {
namespace {

using Style = Script::Style;

constexpr std::int64_t kSteps = 6;

// Acts on a thread of its own when the n-th event comes, while the others go on.
class AtEvent {
 public:
  AtEvent(int n, std::function<void()> act)
      : left_(n), thread_([this, act = std::move(act)] {
          std::unique_lock lock(mutex_);
          changed_.wait(lock, [this] { return left_ <= 0 || over_; });
          if (left_ > 0) return;
          lock.unlock();
          act();
        }) {}
  ~AtEvent() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  void event() {
    const std::lock_guard lock(mutex_);
    --left_;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int left_;  // guarded by mutex_
  bool over_ = false;
  std::thread thread_;
};

struct Kind {
  const char* name;
  Style style;
  bool two_phases;
};

JobLayout layout_of(const Kind& kind) {
  JobLayout layout = mixed_layout();
  layout.two_phases = kind.two_phases;
  return layout;
}

// Without losses, on one server.
const Values& unbroken(const Kind& kind, int workers) {
  static std::map<std::tuple<Style, bool, int>, Values> known;
  Values& values = known[{kind.style, kind.two_phases, workers}];
  if (values.weights.empty()) {
    Job job({.servers = 1, .workers = workers});
    std::mutex mutex;
    job.run(layout_of(kind), [&](Worker& worker) {
      begin(worker);
      Values own = train(worker, {.style = kind.style, .steps = kSteps});
      const std::lock_guard lock(mutex);
      values = std::move(own);
    });
  }
  return values;
}

// For the tests' names.
void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }

// All ranges are on two servers, and stay where they are.
bool settled(const View& view) {
  return std::all_of(view.ranges.begin(), view.ranges.end(), [](const RangeView& range) {
    return range.backup_ready && range.successor == kNobody && !range.handover;
  });
}

class LostServer : public testing::TestWithParam<Kind> {};

// At many moments, each of the three.
TEST_P(LostServer, LeavesTheBitsOfAnUnbrokenRun) {
  const Kind kind = GetParam();
  std::mt19937 random(4711);
  for (int round = 0; round < 25; ++round) {
    const int workers = 1 + round % 3;
    const Values& expected = unbroken(kind, workers);
    const int lost = static_cast<int>(random() % 3);
    const int moment = static_cast<int>(random() % static_cast<unsigned>(30 * workers));
    const std::string how =
        fmt::format("{}: {} workers, server {} lost at event {}", kind.name, workers, lost, moment);
    Job job({.servers = 3, .workers = workers});
    AtEvent at_event(moment, [&] { job.end_server(lost); });
    job.run(layout_of(kind), [&](Worker& worker) {
      begin(worker);
      const Values values =
          train(worker, {.style = kind.style, .steps = kSteps, .event = [&] { at_event.event(); }});
      EXPECT_TRUE(values == expected) << how << ", rank " << worker.rank();
    });
  }
}

// One after the other, so that the last server holds all that three began with; then two of them
// come back, take their shares, and the one that was left is lost.
TEST_P(LostServer, MayBeFollowedByOthersWhenTheBackupsAreReady) {
  const Kind kind = GetParam();
  constexpr int kWorkers = 2;
  Job job({.servers = 3, .workers = kWorkers});
  std::map<std::int64_t, std::function<void()>> before_step;
  before_step[1] = [&] { job.end_server(0); };
  before_step[2] = [&] {
    EXPECT_TRUE(job.await_backups(2));
    job.end_server(1);
  };
  before_step[3] = [&] {
    job.start_server(0);
    EXPECT_TRUE(job.await_backups(2));
  };
  before_step[4] = [&] {
    job.start_server(1);
    EXPECT_TRUE(job.await_backups(3));
  };
  before_step[5] = [&] { job.end_server(2); };
  job.run(layout_of(kind), [&](Worker& worker) {
    begin(worker);
    for (std::int64_t step = 1; step <= kSteps; ++step) {
      const Values values = train(worker, {.style = kind.style, .steps = step});
      if (worker.rank() == 0 && before_step.contains(step)) before_step[step]();
      if (step == kSteps) {
        EXPECT_TRUE(values == unbroken(kind, kWorkers)) << "rank " << worker.rank();
      }
    }
  });
}

// A server comes back and is given ranges, while training goes on. Whichever is lost then, so many
// views and events later: each range has another holder.
TEST_P(LostServer, MayBeAnyWhileRangesMove) {
  const Kind kind = GetParam();
  constexpr int kWorkers = 2;
  std::mt19937 random(1147);
  for (int round = 0; round < 10; ++round) {
    const int lost = static_cast<int>(random() % 3);
    const Term views = static_cast<Term>(random() % 8);
    const int events = static_cast<int>(random() % 20);
    const std::string how = fmt::format("{}: server {} lost {} views and {} events after a return",
                                        kind.name, lost, views, events);
    Job job({.servers = 3, .workers = kWorkers});
    AtEvent at_event(events + 1, [&] { job.end_server(lost); });
    std::promise<void> moment;
    const std::shared_future<void> moment_comes = moment.get_future().share();
    job.run(layout_of(kind), [&](Worker& worker) {
      begin(worker);
      train(worker, {.style = kind.style, .steps = 2});
      if (worker.rank() == 0) {
        job.end_server(2);
        EXPECT_TRUE(job.await_backups(2)) << how;
        const Term before = job.coordinator().view().term;
        job.start_server(2);
        EXPECT_TRUE(job.await([&](const View& view) {
          return view.servers.size() == 3 && (view.term >= before + views || settled(view));
        })) << how;
        moment.set_value();
      }
      ASSERT_EQ(moment_comes.wait_for(std::chrono::seconds(60)), std::future_status::ready) << how;
      const Values values =
          train(worker, {.style = kind.style, .steps = kSteps, .event = [&] { at_event.event(); }});
      EXPECT_TRUE(values == unbroken(kind, kWorkers)) << how << ", rank " << worker.rank();
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, LostServer,
                         testing::Values(Kind{"whole", Style::kWhole, false},
                                         Kind{"by range", Style::kByRange, false},
                                         Kind{"sparing", Style::kSparing, false},
                                         Kind{"two phases", Style::kWhole, true}));

// Two phases: whoever asks again for a step that others have committed is told by how much, also by
// a server that was sent the state later and has replaced all who saw the commit.
TEST(LostServers, TakeNoCommittedScaleWithThem) {
  const Kind kind{"two phases", Style::kWhole, true};
  Job job({.servers = 2, .workers = 1});
  const auto workers = job.join(layout_of(kind));
  Worker& worker = *workers[0];
  begin(worker);
  worker.wait(worker.push({}));
  const auto scale_of = [](std::size_t range) { return 0.25 + static_cast<double>(range); };
  for (std::size_t range = 0; range < worker.num_dense_ranges(); ++range) {
    worker.commit(range, {.learning_rate = kLearningRate, .gradient_scale = scale_of(range)});
  }
  worker.end_step();  // pushes nothing to the tables
  worker.wait_all();
  job.end_server(0);
  ASSERT_TRUE(job.await([](const View& view) { return view.servers.size() == 1; }));
  job.start_server(0);
  ASSERT_TRUE(job.await([](const View& view) { return view.servers.size() == 2; }));
  ASSERT_TRUE(job.await(settled));
  job.end_server(1);
  ASSERT_TRUE(job.await([](const View& view) { return view.servers.size() == 1; }));
  RpcClientOptions options;
  options.port = job.server(0).port();
  options.name = "test";
  RpcClient client(options);
  std::vector<std::byte> space(layout_of(kind).range_bytes);
  for (std::size_t range = 0; range < worker.num_dense_ranges(); ++range) {
    RangeRequest request;
    request.range = static_cast<std::uint32_t>(range);
    request.term = job.coordinator().view().term;
    const RpcReply reply = client.call({.method = static_cast<std::uint32_t>(Method::kPeek),
                                        .header = encode(request),
                                        .payload = {},
                                        .reply_space = space});
    ASSERT_EQ(reply.status, kStatusOk);
    EXPECT_EQ(decode<RangeReply>(reply.header).committed_scale, scale_of(range)) << range;
  }
}

// The server that comes back is given ranges, of which it becomes primary.
TEST(ReturnedServer, TakesItsShare) {
  const Kind kind{"whole", Style::kWhole, false};
  Job job({.servers = 2, .workers = 2});
  job.run(layout_of(kind), [&](Worker& worker) {
    begin(worker);
    train(worker, {.steps = 2});
    if (worker.rank() == 0) {
      job.end_server(1);
      EXPECT_TRUE(job.await([](const View& view) { return view.servers.size() == 1; }));
      job.start_server(1);
      EXPECT_TRUE(job.await_backups(2));
      EXPECT_TRUE(job.await([](const View& view) {
        ServerId back = kNobody;
        for (const ServerView& server : view.servers) back = std::max(back, server.id);
        return std::any_of(view.ranges.begin(), view.ranges.end(),
                           [&](const RangeView& range) { return range.primary == back; });
      }));
    }
    EXPECT_TRUE((train(worker, {.steps = kSteps}) == unbroken(kind, 2))) << worker.rank();
  });
}

TEST(LostServers, BothHoldersOfARangeEndTheJobWithItsName) {
  Job job({.servers = 2, .workers = 1});
  const auto workers = job.join(mixed_layout());
  Worker& worker = *workers[0];
  begin(worker);
  job.end_server(0);
  job.end_server(1);
  try {
    train(worker, {.steps = kSteps});
    FAIL() << "training went on without servers";
  } catch (const CommError& error) {
    EXPECT_NE(std::string(error.what()).find("range 0 of 7 is lost"), std::string::npos)
        << error.what();
  }
  EXPECT_THROW(job.coordinator().wait(), CommError);
}

}  // namespace
}  // namespace trireme::ps

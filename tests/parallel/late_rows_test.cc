// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/late_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/nn/module.h>
#include <torch/types.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/error_text.h"
#include "tests/support/ranks.h"
#include "tests/support/replica_models.h"
#include "trireme/base/deadline.h"
#include "trireme/base/error.h"
#include "trireme/ops/checkpoint.h"
#include "trireme/ops/embedding.h"
#include "trireme/ops/loss.h"
#include "trireme/parallel/gradient_reducer.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {
namespace {

using testing::formula_samples;
using testing::gradients_of;
using ::testing::HasSubstr;
using testing::run_threads;
using testing::same_bits;

using Order = std::vector<std::size_t>;

constexpr std::int64_t kRows = 331, kWidth = 67, kTokens = 7;
constexpr std::int64_t kBucketBytes = kShardBlock * 4;
constexpr std::chrono::milliseconds kHoldTime = std::chrono::seconds(20);

// How a model uses its table besides looking rows up in it first of all.
enum class Output { kTied, kOwn, kTiedInCheckpoint };

// Words, two layers and a loss over all words.
struct Words : torch::nn::Module {
  explicit Words(Output output_in = Output::kTied) : output(output_in) {
    const auto add = [this](const std::string& name, std::int64_t first, std::int64_t rows) {
      return register_parameter(name, formula_samples(first, rows, kWidth, at::kFloat) * 0.3);
    };
    table = add("table", 0, kRows);
    for (int i = 0; i < 2; ++i) {
      layers.push_back(add("layer" + std::to_string(i), 1000 + 100 * i, kWidth));
    }
    head = output == Output::kOwn ? add("head", 5000, kRows) : table;
  }

  // tokens: how many different ones the micro-batch has, at most.
  at::Tensor loss(std::int64_t m, std::int64_t tokens = 40) {
    const at::Tensor numbers = torch::arange(3 * length, at::kLong) * 31 + 17 * m;
    const at::Tensor words =
        (numbers.remainder(tokens) * (kRows / tokens) + m % 3).remainder(kRows);
    at::Tensor x = ops::embedding(table, words.view({3, length}));
    if (on_embedding_gradient) x.register_hook(on_embedding_gradient);
    for (const at::Tensor& layer : layers) x = x.matmul(layer).tanh();
    const at::Tensor targets = (numbers * 5 + 1).remainder(kRows);
    const auto last = [this, targets](const std::vector<at::Tensor>& in) {
      return std::vector<at::Tensor>{ops::linear_cross_entropy(in[0], head, targets)};
    };
    const std::vector<at::Tensor> rows{x.view({-1, kWidth})};
    return (output == Output::kTiedInCheckpoint ? ops::checkpoint(last, rows) : last(rows))[0];
  }

  Output output;
  std::int64_t length = kTokens;
  at::Tensor table, head;
  std::vector<at::Tensor> layers;
  std::function<void(const at::Tensor&)> on_embedding_gradient;
};

struct Summed {
  Summed(torch::nn::Module& module, Group& group, std::int64_t micro_batches, bool late_rows)
      : flat(module, at::kFloat, {.group = &group}),
        reducer(flat, group, options(micro_batches, late_rows),
                [this](Group& wire, std::size_t bucket, const at::Tensor& gradients) {
                  left.push_back(bucket);
                  wire.all_reduce(buffer_of_tensor(gradients));
                }) {}

  ReducerOptions options(std::int64_t micro_batches, bool late_rows) {
    ReducerOptions result{.micro_batches = micro_batches, .bucket_bytes = kBucketBytes};
    if (late_rows) {
      result.exchange_rows = [this](Group& wire, const at::Tensor& rows) {
        num_late += rows.numel() / kWidth;
        wire.all_reduce(buffer_of_tensor(rows));
      };
    }
    return result;
  }
  std::size_t place(std::size_t bucket) const {
    return static_cast<std::size_t>(std::find(left.begin(), left.end(), bucket) - left.begin());
  }

  FlatParameters flat;
  Order left;                 // the communication thread's, until finish()
  std::int64_t num_late = 0;  // rows, too
  GradientReducer reducer;
};

using Gradients = std::vector<std::vector<at::Tensor>>;  // by step

struct Run {
  Gradients gradients;
  std::vector<Order> left;
  std::vector<std::int64_t> num_late;
};

// Three steps of a rank, each of all its micro-batches that loss says something of.
template <class Loss>
Run run_steps(Words& words, Group& group, std::int64_t micro_batches, bool late_rows, Loss loss) {
  Summed summed(words, group, micro_batches, late_rows);
  Run run;
  for (int step = 0; step < 3; ++step) {
    summed.flat.zero_grad();
    summed.left.clear();
    summed.num_late = 0;
    for (const std::int64_t m : summed.reducer.micro_batches()) {
      const at::Tensor value = loss(step, m);
      if (value.defined()) summed.reducer.backward(value);
    }
    summed.reducer.finish();
    run.gradients.push_back(gradients_of(words));
    run.left.push_back(summed.left);
    run.num_late.push_back(summed.num_late);
  }
  return run;
}

void expect_same_bits(const Run& run, const Run& plain, int rank) {
  for (std::size_t step = 0; step < 3; ++step) {
    EXPECT_TRUE(same_bits(run.gradients[step], plain.gradients[step]))
        << "rank " << rank << ", step " << step;
  }
}

// The table is the first six buckets (of one block each, the last with a part of a layer).
// Buckets 0 to 4 hold nothing but the table, the next its end and the beginning of a layer.
constexpr std::size_t kTableBuckets = 5;

TEST(LateRows, TheMatrixLeavesFirstAndTheSumsAreTheSame) {
  for (const Output output : {Output::kTied, Output::kOwn}) {
    for (const int ranks : {2, 3}) {
      for (const int micro_batches : {ranks, 2 * ranks, ranks == 2 ? 6 : 12}) {
        run_threads(ranks, [&](Group& group) {
          Words words(output), plain_words(output);
          const auto run =
              run_steps(words, group, micro_batches, true,
                        [&](int step, std::int64_t m) { return words.loss(100 * step + m); });
          const auto plain =
              run_steps(plain_words, group, micro_batches, false,
                        [&](int step, std::int64_t m) { return plain_words.loss(100 * step + m); });
          expect_same_bits(run, plain, group.rank());
          EXPECT_EQ(run.num_late[0], 0) << "the first step looks on";
          for (std::size_t step = 1; step < 3; ++step) {
            EXPECT_GT(run.num_late[step], 21);
            EXPECT_LT(run.num_late[step], 4 * kRows);
            const auto first = run.left[step].begin();
            std::vector<std::size_t> early(first, first + kTableBuckets);
            std::sort(early.begin(), early.end());
            EXPECT_EQ(early, (Order{0, 1, 2, 3, 4})) << "step " << step;
            EXPECT_GT(plain.left[step].front(), kTableBuckets);
          }
        });
      }
    }
  }
}

// More than half of the rows: they leave at the end, with the matrix.
TEST(LateRows, ManyRowsTravelWithTheMatrix) {
  for (const std::int64_t micro_batches : {2, 6}) {
    run_threads(2, [&](Group& group) {
      Words words, plain_words;
      const auto loss_of = [](Words& model, int step, std::int64_t m) {
        model.length = step == 1 ? kTokens : 10 * kTokens;
        return model.loss(100 * step + m, step == 1 ? 40 : kRows);
      };
      const auto run = run_steps(words, group, micro_batches, true,
                                 [&](int step, std::int64_t m) { return loss_of(words, step, m); });
      const auto plain =
          run_steps(plain_words, group, micro_batches, false,
                    [&](int step, std::int64_t m) { return loss_of(plain_words, step, m); });
      expect_same_bits(run, plain, group.rank());
      EXPECT_GT(run.num_late[1], 0);
      EXPECT_EQ(run.num_late[2], 0);
    });
  }
}

// Rank 1 has no data in step 1, rank 0 none in step 2; in step 0 all have.
TEST(LateRows, ARankWithoutDataTakesPart) {
  for (const std::int64_t micro_batches : {2, 6}) {
    run_threads(2, [&](Group& group) {
      Words words, plain_words;
      const auto has_data = [&](int step) { return step == 0 || step % 2 == group.rank(); };
      const auto run = run_steps(words, group, micro_batches, true, [&](int step, std::int64_t m) {
        return has_data(step) ? words.loss(100 * step + m) : at::Tensor();
      });
      const auto plain =
          run_steps(plain_words, group, micro_batches, false, [&](int step, std::int64_t m) {
            return has_data(step) ? plain_words.loss(100 * step + m) : at::Tensor();
          });
      expect_same_bits(run, plain, group.rank());
      EXPECT_GT(run.num_late[1], 0);
      EXPECT_GT(run.num_late[2], 0);
    });
  }
}

// loss.backward() of the user's own: nothing is known of its graph.
TEST(LateRows, APassOfUnknownGraphLeavesWhole) {
  run_threads(2, [&](Group& group) {
    Words words, plain_words;
    Summed summed(words, group, 2, true), plain(plain_words, group, 2, false);
    for (int step = 0; step < 4; ++step) {
      summed.flat.zero_grad();
      plain.flat.zero_grad();
      summed.num_late = 0;
      const at::Tensor loss = words.loss(2 * step + group.rank());
      const at::Tensor plain_loss = plain_words.loss(2 * step + group.rank());
      if (step == 2 || (step == 3 && group.rank() == 1)) {
        loss.backward();
        plain_loss.backward();
      } else {
        summed.reducer.backward(loss);
        plain.reducer.backward(plain_loss);
      }
      summed.reducer.finish();
      plain.reducer.finish();
      EXPECT_EQ(summed.num_late > 0, step == 1) << step;
      EXPECT_TRUE(same_bits(gradients_of(words), gradients_of(plain_words)))
          << "rank " << group.rank() << ", step " << step;
    }
  });
}

TEST(LateRows, AMatrixThatACheckpointUsesWaits) {
  run_threads(2, [&](Group& group) {
    Words words(Output::kTiedInCheckpoint);
    const auto loss = [&](int step, std::int64_t m) { return words.loss(100 * step + m); };
    // Two accumulations of one parameter in a pass: what the reducer says of it without late rows.
    EXPECT_THAT(testing::failure_of([&] { run_steps(words, group, 2, true, loss); }),
                ::testing::AnyOf(HasSubstr("several ops::checkpoint() use it"),
                                 HasSubstr("a backward pass ended with")));
  });
}

// What a step adds that its graph does not have would be lost: it is told by name, on all ranks.
TEST(LateRows, AnAdditionAfterTheMatrixHasLeftIsAnError) {
  run_threads(2, [&](Group& group) {
    Words words;
    Summed summed(words, group, 2, true);
    for (int step = 0; step < 2; ++step) {
      summed.flat.zero_grad();
      summed.reducer.backward(words.loss(2 * step + group.rank()));
      summed.reducer.finish();
    }
    summed.flat.zero_grad();
    words.output = Output::kTiedInCheckpoint;
    const std::string text = testing::failure_of([&] {
      summed.reducer.backward(words.loss(4 + group.rank()));
      summed.reducer.finish();
    });
    EXPECT_THAT(text, ::testing::AnyOf(HasSubstr("the gradient of table"),
                                       HasSubstr("to the gradient of table")))
        << text;
  });
}

// The matrix is on its way before the embedding's backward begins.
TEST(LateRows, TheMatrixTravelsWhileBackwardRuns) {
  run_threads(2, [&](Group& group) {
    Words words;
    Summed summed(words, group, 2, true);
    std::int64_t sent_before = 0;
    for (int step = 0; step < 3; ++step) {
      summed.flat.zero_grad();
      sent_before = summed.reducer.bytes_sent();
      const at::Tensor loss = words.loss(2 * step + group.rank());
      if (step > 0) {
        words.on_embedding_gradient = [&](const at::Tensor&) {
          const Deadline deadline = Deadline::after(kHoldTime);
          const std::int64_t whole = sent_before + kTableBuckets * kBucketBytes;
          while (summed.reducer.bytes_sent() < whole && !deadline.expired()) {
            std::this_thread::yield();
          }
          EXPECT_GE(summed.reducer.bytes_sent(), whole) << "step " << step;
        };
      }
      summed.reducer.backward(step == 0 ? loss : words.loss(2 * step + group.rank()));
      summed.reducer.finish();
    }
  });
}

}  // namespace
}  // namespace trireme

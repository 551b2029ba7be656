// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Strategies: how a model is spread over workers, in the words of tf.distribute. A whole program:
//
//   trireme::MirroredStrategy strategy({.workers = 2});
//   const auto scope = strategy.scope();
//   trireme::Model model(scope, torch::nn::Sequential(...));            // model.h
//   model.compile(trireme::Adam(), trireme::BinaryCrossEntropy());
//   model.fit({x, y}, {.epochs = 10, .batch_size = 32});
//   strategy.close();
//
//   MirroredStrategy             one host; each worker has the whole model and a part of the batch
//   MultiWorkerMirroredStrategy  the same on several hosts, started by torchrun, srun, mpirun, ...
//   ShardedStrategy              each worker keeps a share of the optimizer's state (stage 1), of
//                                the gradients (2), of the weights (3); one host or several
//
// How workers come to be. Where a launcher has started this process, it joins the others. Where
// nothing has and `workers` is more than one, the constructor starts the others: this program
// again, with the same arguments. This process is rank 0 and goes on; the others start at main()
// and reach the same line. So every worker does what stands before it, and everything after it is
// done together; what shall be printed once wants `if (strategy.rank() == 0)`. Nothing is forked
// that goes on, nothing exits: where a worker ends early the others get a PeerLostError, and when
// this process ends, so do the ones that it started.
//
// The numbers of a run do not depend on the number of workers. A batch is cut into a fixed number
// of micro-batches, by default 4, whose losses and gradients are summed in one order whoever
// computes them: 1, 2 and 4 workers train the same model, bit for bit. The bits of a matrix product
// also depend on the number of threads, so that is one per worker unless you say more.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "trireme/comm/codec/compressed_all_reduce.h"
#include "trireme/parallel/shard/shard_plan.h"
#include "trireme/train/optimizer_recipe.h"
#include "trireme/train/spread_model.h"

namespace torch::nn {
class Module;
}

namespace trireme {

class CompanionWorkers;
class Group;
class Strategy;

// What models are made in: they belong to its strategy. While it lives LibTorch's generator of
// random numbers on the CPU starts from the strategy's seed, so that every run makes the same model
// on every worker; afterwards it goes on as before. Made by Strategy::scope().
class StrategyScope {
 public:
  StrategyScope(Strategy& strategy, std::uint64_t seed);
  ~StrategyScope();
  StrategyScope(const StrategyScope&) = delete;
  StrategyScope& operator=(const StrategyScope&) = delete;

  Strategy& strategy() const { return strategy_; }

 private:
  Strategy& strategy_;
  at::Tensor generator_state_;
};

// Not thread-safe. One per program; on the main thread where it starts workers. Models must not
// outlive it.
class Strategy {
 public:
  virtual ~Strategy();  // does not communicate; kills workers that it started and that still run
  Strategy(const Strategy&) = delete;
  Strategy& operator=(const Strategy&) = delete;

  int rank() const;
  int size() const;
  Group& world() const { return *world_; }
  StrategyScope scope() { return {*this, seed_}; }
  // The last line of a program: leaves the world and waits for the workers that this process
  // started. Idempotent. Throws CommError; Error when one of them failed.
  void close();

  // For Model: the module, which becomes rank 0's on all ranks, with an optimizer, and an average
  // of the weights (CompileOptions in model.h). Collective, blocking. Throws ConfigError: the ranks
  // cannot share the micro-batches, a recipe that this strategy has no optimizer for, a decay that
  // is out of range; what Replica and ShardedModel throw.
  virtual std::unique_ptr<SpreadModel> spread(torch::nn::Module& module,
                                              const OptimizerRecipe& recipe,
                                              double average_decay) = 0;

 protected:
  // What all of them are told. micro_batches: of a batch; 0: 4, or for more or an odd number of
  // workers the least number above that they can share. even_shares: they share alike (ZeRO stages
  // 2 and 3), so that any but a power of two of them take one micro-batch each.
  struct Common {
    int workers = 1;
    int threads = 1;  // of each; 0: the host's cores, divided among its workers
    std::int64_t micro_batches = 0;
    std::uint64_t seed = 0;
    bool one_host = false;  // several are refused
    bool even_shares = false;
  };
  // Starts or joins. Throws ConfigError: workers that a launcher has started in another number or
  // on several hosts, numbers out of range, all before any socket is opened; workers that were told
  // different things; what join_world() throws.
  explicit Strategy(const Common& common);
  // On a group that is there; outlives this.
  Strategy(Group& group, const Common& common);

  std::int64_t micro_batches() const { return micro_batches_; }

 private:
  std::unique_ptr<CompanionWorkers> companions_;
  std::unique_ptr<Group> own_world_;
  Group* world_;
  std::uint64_t seed_;
  std::int64_t micro_batches_;
};

struct MirroredOptions {
  int workers = 1;
  int threads = 1;                 // of each; 0: the host's cores, divided among its workers
  std::int64_t micro_batches = 0;  // of a batch; 0: 4, or what the workers can share
  std::uint64_t seed = 0;          // of the models' initial weights
  std::optional<CompressionOptions> compression = std::nullopt;  // docs/compression.md
};

class MirroredStrategy : public Strategy {
 public:
  // Throws ConfigError as Strategy does, and when a launcher has started workers on several hosts.
  explicit MirroredStrategy(const MirroredOptions& options = {});
  MirroredStrategy(Group& group, const MirroredOptions& options);
  std::unique_ptr<SpreadModel> spread(torch::nn::Module& module, const OptimizerRecipe& recipe,
                                      double average_decay) override;

 private:
  std::optional<CompressionOptions> compression_;
};

struct MultiWorkerMirroredOptions {
  int threads = 1;
  std::int64_t micro_batches = 0;
  std::uint64_t seed = 0;
  std::optional<CompressionOptions> compression = std::nullopt;
};

// The world that a launcher has started, or a world of one.
class MultiWorkerMirroredStrategy : public Strategy {
 public:
  explicit MultiWorkerMirroredStrategy(const MultiWorkerMirroredOptions& options = {});
  std::unique_ptr<SpreadModel> spread(torch::nn::Module& module, const OptimizerRecipe& recipe,
                                      double average_decay) override;

 private:
  std::optional<CompressionOptions> compression_;
};

struct ShardedOptions {
  int stage = 1;  // 0 to 3, see parallel/shard/sharded_model.h
  int workers = 1;
  int threads = 1;                 // of each; 0: the host's cores, divided among its workers
  std::int64_t micro_batches = 0;  // of a batch; 0: 4, or what the workers can share
  std::uint64_t seed = 0;          // of the models' initial weights
  // Workers side by side that keep one copy of the model between them, those of a host say; 0: all;
  // kHostRanks: those of each host (docs/data_parallel.md).
  int shard_ranks = 0;
};

// Models in f32. Stages 2 and 3 go through a Sequential child by child: stage 3 gathers the weights
// of one, and of the next ahead, and frees them after it. A child makes a tensor of a tensor; what
// several children share is there all the time. Any other module is gathered whole for each
// micro-batch and freed after it.
class ShardedStrategy : public Strategy {
 public:
  // On one host, or the world that a launcher has started on several.
  explicit ShardedStrategy(const ShardedOptions& options = {});
  ShardedStrategy(Group& group, const ShardedOptions& options);
  // Throws ConfigError also for a recipe without an optimizer over shards, and for shard_ranks that
  // the workers cannot form.
  std::unique_ptr<SpreadModel> spread(torch::nn::Module& module, const OptimizerRecipe& recipe,
                                      double average_decay) override;

 private:
  int stage_;
  int shard_ranks_;
};

}  // namespace trireme

#include "continuum/emit_target.hpp"

#include "continuum/error.hpp"

#include <utility>

namespace continuum {

EmitTarget::EmitTarget(Topic topic) : topic_(std::move(topic)) {}

void EmitTarget::update(Topic topic) {
  if (topic.log_id != topic_.log_id) {
    fail(ErrorKind::loss,
         "topic {}, which is emitted to, is another one than when this worker started: was it dropped and "
         "created "
         "again? Start the worker again to emit to the new one",
         topic_.name);
  }
  if (topic.active >= topic_.active) {
    topic_ = std::move(topic);
  }
}

const Ring& EmitTarget::ring(Generation generation) {
  if (const auto found = rings_.find(generation); found != rings_.end()) {
    return found->second;
  }
  const auto description = topic_.rings.find(generation);
  if (description == topic_.rings.end()) {
    fail(ErrorKind::loss, "topic {} does not describe generation {} of its ring", topic_.name, generation);
  }
  return rings_.try_emplace(generation, description->second).first->second;
}

}  // namespace continuum

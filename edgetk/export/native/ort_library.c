/* The operator library: what ONNX Runtime calls when a session registers it. One line here for each operator. */
#include "ort_library.h"

#include <stddef.h>

static const OrtCustomOp *const OPERATORS[] = {
    &edgetk_op_binary_attention,
    &edgetk_op_dense_sparse,
    &edgetk_op_dense_sparse_by_row,
    &edgetk_op_dense_sparse_int8,
    &edgetk_op_dense_sparse_by_row_int8,
    &edgetk_op_hard_attention,
    &edgetk_op_lookup_linear,
};

/* The domain lives as long as the library: sessions keep pointers to it. */
static OrtCustomOpDomain *shared_domain;

static OrtStatusPtr make_domain(const OrtApi *api) {
  OrtCustomOpDomain *domain = NULL, *none = NULL;
  OrtStatusPtr status = api->CreateCustomOpDomain("edgetk", &domain);
  for (size_t i = 0; !status && i < sizeof OPERATORS / sizeof *OPERATORS; ++i) {
    status = api->CustomOpDomain_Add(domain, OPERATORS[i]);
  }
  const int kept = !status && __atomic_compare_exchange_n(&shared_domain, &none, domain, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
  if (domain && !kept) api->ReleaseCustomOpDomain(domain); /* an error, or another thread was first */
  return status;
}

#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
OrtStatusPtr RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base);

OrtStatusPtr RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
  const OrtApi *api = base->GetApi(EDGETK_ORT_VERSION);
  if (!api) {
    const OrtApi *oldest = base->GetApi(1);
    return oldest ? oldest->CreateStatus(ORT_FAIL, "edgetk operators: need ONNX Runtime 1.16 or newer; update it") : NULL;
  }
  OrtStatusPtr status = NULL;
  if (!__atomic_load_n(&shared_domain, __ATOMIC_ACQUIRE)) status = make_domain(api);
  return status ? status : api->AddCustomOpDomain(options, __atomic_load_n(&shared_domain, __ATOMIC_ACQUIRE));
}

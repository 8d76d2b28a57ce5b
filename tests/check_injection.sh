#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Every call of the library that can fail is one that test_inject makes fail.
# The library's undefined symbols are compared with the list of
# tests/c/test_inject.cmake and with the one below, of calls that cannot fail or
# whose failure nobody can do anything about. A new call has to be put into one
# of the two.
set -u
cd "$(dirname "$0")/.." || exit 1
build=${1:?usage: tests/check_injection.sh BUILD}

# Pure, or told by their result as often as by an error.
pure='__errno_location _GLOBAL_OFFSET_TABLE_ in6addr_loopback memchr memcmp
  memcpy memmove memset snprintf vsnprintf strchr strcmp strcspn strlen strncmp
  strpbrk strrchr strspn strstr strtoul qsort time inet_ntop inet_pton gmtime_r
  __stack_chk_fail'
# They fail on what is not open, not there or no clock, and so only by our own
# fault.
sure='clock_gettime close closedir poll pthread_sigmask readdir sigfillset
  unlink'
# OpenSSL's of that kind.
ssl='CRYPTO_memcmp ERR_pop_to_mark ERR_set_mark EVP_sha256 OPENSSL_cleanse'
# OpenSSL's for TLS: test_tls_memory fails each allocation that is made in them,
# test_tls has peers that make them fail.
tls='BIO_clear_flags BIO_free BIO_get_data BIO_meth_free BIO_meth_new
  BIO_meth_set_ctrl BIO_meth_set_read_ex BIO_meth_set_write_ex BIO_new
  BIO_set_data BIO_set_flags BIO_set_init ERR_clear_error ERR_peek_error
  SSL_CIPHER_find SSL_CTX_clear_options SSL_CTX_ctrl SSL_CTX_free SSL_CTX_new
  SSL_CTX_set_ciphersuites SSL_CTX_set_client_hello_cb
  SSL_CTX_set_default_read_buffer_len
  SSL_CTX_set_max_early_data SSL_CTX_set_num_tickets SSL_CTX_set_options
  SSL_CTX_set_psk_find_session_callback SSL_CTX_set_psk_use_session_callback
  SSL_CTX_set_verify SSL_SESSION_free SSL_SESSION_new
  SSL_SESSION_set1_master_key SSL_SESSION_set_cipher
  SSL_SESSION_set_protocol_version SSL_client_hello_get0_ext SSL_do_handshake
  SSL_export_keying_material SSL_free SSL_get_error SSL_get_ex_data SSL_get_rbio
  SSL_has_pending SSL_new SSL_peek_ex SSL_read_ex SSL_session_reused
  SSL_set_accept_state SSL_set_bio SSL_set_connect_state SSL_set_ex_data
  SSL_shutdown SSL_write_ex TLS_method'
# And for certificates: test_tls_memory again, and files of all kinds in
# test_tls_certs.
certs='ASN1_STRING_to_UTF8 ASN1_TIME_to_tm CRYPTO_free
  ERR_reason_error_string SSL_CTX_check_private_key SSL_CTX_get0_certificate
  SSL_CTX_get_cert_store SSL_CTX_load_verify_file SSL_CTX_set_default_passwd_cb
  SSL_CTX_set_default_passwd_cb_userdata
  SSL_CTX_set_default_verify_paths SSL_CTX_use_PrivateKey_file
  SSL_CTX_use_certificate_chain_file SSL_ctrl SSL_get0_param
  SSL_get0_peer_certificate SSL_get_verify_result SSL_set_SSL_CTX SSL_set_verify
  X509_NAME_ENTRY_get_data X509_NAME_get_entry X509_NAME_get_index_by_NID
  X509_STORE_set_flags X509_VERIFY_PARAM_set1_host X509_VERIFY_PARAM_set1_ip_asc
  X509_VERIFY_PARAM_set_hostflags X509_check_purpose X509_cmp_current_time
  X509_digest
  X509_get0_notAfter X509_get0_notBefore X509_get_subject_name
  X509_verify_cert_error_string'
# libuv's own: without a result, or only wrong if called wrongly.
uv='uv_async_send uv_close uv_cancel uv_freeaddrinfo uv_hrtime uv_is_active
  uv_is_closing uv_loop_close uv_mutex_destroy uv_mutex_lock uv_mutex_unlock
  uv_now uv_run uv_thread_join
  uv_poll_stop uv_timer_init uv_timer_start uv_timer_stop
  uv_sleep uv_translate_sys_error uv_update_time'

# The words between the parentheses of set(injected …).
injected=$(sed -n '/^set(injected/,/)/p' tests/c/test_inject.cmake |
  tr '()' '  ')

known=$(printf ' %s ' "$pure" "$sure" "$ssl" "$tls" "$certs" "$uv" "$injected" | tr -s '\n ' ' ')

unknown=''
for symbol in $(nm -u "$build/librelay.a" | awk '$1 == "U" { print $2 }' |
  grep -v '^relay_' | sed 's/@.*//' | sort -u); do
  case $known in
    *" $symbol "*) ;;
    *) unknown="$unknown $symbol" ;;
  esac
done

if [ -z "$unknown" ]; then
  echo "1 passed, 0 failed"
else
  echo "not so: test_inject makes these fail, or they cannot:$unknown"
  echo "0 passed, 1 failed"
  exit 1
fi

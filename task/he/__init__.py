"""Homomorphic encryption: a server adds up ciphertexts whose key only clients have.

All clients share one secret key (the libraries with threshold keys do not install everywhere), so
the guarantee is this: a server that follows the protocol learns nothing but sizes and who took
part. It is lost if any client tells the server its key. Ciphertexts can be changed on purpose
without that showing (anyone may add to or multiply a plaintext unseen), so a server that cheats is
held off by secure aggregation, not by this. Accidents show: see `cohort`.
"""
